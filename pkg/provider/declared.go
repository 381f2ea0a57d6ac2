package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// declared is a preset that is data: a MAC in a header, and where the event's names stand. Its fields are those of
// a source's section hmac, so that what a preset does, a source of provider hmac can do as well.
type declared struct {
	HMAC
	// id, typ and at say where the names stand: "header:Name", a body member as a path with dots, or nothing. Several
	// members, with spaces between them, are joined with slashes, if all are there; of several headers, the first
	// that is there counts.
	id, typ, at string
	// also are further headers that may carry a signature, any of which may fit.
	also []string
	// require are headers that, where they are there, hold this value (canonical names).
	require map[string]string
	// stampMember is a body member with the time of signing, in milliseconds: judged once the body is verified.
	stampMember string
	// readStamp reads the signed timestamp; nil: Unix seconds. writeStamp is its counterpart.
	readStamp  func(text string) (time.Time, bool)
	writeStamp func(t time.Time) string
	// readTime reads the event's time; nil: Unix seconds or milliseconds, or RFC 3339.
	readTime func(v value) time.Time
	// secret turns a secret's text into the key; nil: as SecretEncoding says.
	secret func(text string) ([]byte, error)
	// greeting answers what is no delivery; nil: there is no such request.
	greeting func(r *Request) (*Response, error)
	// answering answers a verified request that carries no event; nil: all carry one.
	answering func(r *Request) (*Response, error)
}

type declaredScheme struct {
	*hmacScheme
	d           *declared
	fields      *fields
	id, typ, at place
	stamp       int // place in fields; noSlot: no time is signed there
	window      window
}

// place is where a name stands: in the first of the headers that is there, or in members (places in fields).
type place struct {
	headers []string
	slots   []int
}

// headersOf are the headers that a place names (canonical names).
func headersOf(where string) []string {
	var names []string
	for one := range strings.FieldsSeq(where) {
		if name, ok := strings.CutPrefix(one, "header:"); ok {
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	return names
}

func firstHeader(where string) string {
	if names := headersOf(where); len(names) > 0 {
		return names[0]
	}
	return ""
}

func (s *declaredScheme) place(where string) place {
	p := place{headers: headersOf(where)}
	if len(p.headers) > 0 {
		return p
	}
	for path := range strings.FieldsSeq(where) {
		p.slots = append(p.slots, s.fields.add(strings.Split(path, ".")))
	}
	return p
}

func (p *place) text(h http.Header, v []value) string {
	for _, name := range p.headers {
		if text := get(h, name); text != "" {
			return text
		}
	}
	if len(p.slots) == 1 {
		return v[p.slots[0]].text()
	}
	var parts []string
	for _, slot := range p.slots {
		text := v[slot].text()
		if text == "" {
			return ""
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "/")
}

// rules are d's, which are right by construction: the tests open every preset.
func (d *declared) rules() hmacRules {
	c := d.HMAC
	c.IDHeader, c.TypeHeader = firstHeader(d.id), firstHeader(d.typ)
	rules, errs := newHMACRules(&c)
	if len(errs) > 0 {
		panic(errs[0]) //nolint:forbidigo // a preset that is wrong by construction: the tests open every one
	}
	rules.also = d.also
	rules.readStamp, rules.writeStamp = unixSeconds, func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	if d.readStamp != nil {
		rules.readStamp = d.readStamp
	}
	if d.writeStamp != nil {
		rules.writeStamp = d.writeStamp
	}
	if d.secret != nil {
		rules.secret = d.secret
	}
	return rules
}

func (d *declared) open(o *opening) opened {
	rules := d.rules()
	opened := openRules(o, rules, d.Tolerance, d.Signed)
	inner, ok := opened.scheme.(*hmacScheme)
	if !ok {
		return opened
	}
	s := &declaredScheme{hmacScheme: inner, d: d, fields: &fields{}, stamp: noSlot}
	s.id, s.typ, s.at = s.place(d.id), s.place(d.typ), s.place(d.at)
	opened.security = slices.Concat(opened.security, headersOf(d.id), headersOf(d.typ), slices.Collect(maps.Keys(d.require)))
	if d.stampMember != "" {
		s.stamp, s.window = s.fields.add(strings.Split(d.stampMember, ".")), o.tolerance(d.Tolerance)
	}
	opened.scheme = s
	return opened
}

func (d *declared) sign(in *SignInput) (Signed, error) {
	if d.stampMember == "" {
		return signRules(in, d.rules())
	}
	stamped := *in
	var err error
	if stamped.Body, err = withStamp(in.Body, d.stampMember, in.Now); err != nil {
		return Signed{}, err
	}
	signed, err := signRules(&stamped, d.rules())
	signed.Body = stamped.Body
	return signed, err
}

var errNoObject = errors.New("this scheme signs a time in the body: expected a JSON object")

// withStamp writes the time into the member of that name: in place of its value, or before the first member.
func withStamp(body []byte, name string, now time.Time) ([]byte, error) {
	stamp := strconv.FormatInt(now.UnixMilli(), 10)
	if len(body) == 0 {
		return fmt.Appendf(nil, `{%q:%s}`, name, stamp), nil
	}
	body = bytes.Clone(body)
	var v [1]value
	if err := newFields(name).read(body, v[:]); err != nil {
		return nil, err
	}
	if v[0] != nil {
		at := cap(body) - cap(v[0])
		return slices.Concat(body[:at], []byte(stamp), body[at+len(v[0]):]), nil
	}
	open := bytes.IndexByte(body, '{')
	if open < 0 || !jsontext.Value(body).IsValid() || len(bytes.TrimSpace(body[:open])) > 0 {
		return nil, errNoObject
	}
	comma := ","
	if rest := bytes.TrimSpace(body[open+1:]); rest[0] == '}' {
		comma = ""
	}
	stamped := slices.Concat(body[:open+1], fmt.Appendf(nil, "%q:%s%s", name, stamp, comma), body[open+1:])
	return stamped, newFields(name).read(stamped, v[:]) // it may have been there in another spelling
}

func (s *declaredScheme) verify(ctx context.Context, r *Request) (proof, error) {
	for name, value := range s.d.require {
		if text := get(r.Header, name); text != "" && text != value {
			return proof{}, errMalformed
		}
	}
	p, err := s.hmacScheme.verify(ctx, r)
	if err != nil || s.stamp == noSlot {
		return p, err
	}
	return p, s.checkStamp(r)
}

// checkStamp judges the time in a body whose signature fits.
func (s *declaredScheme) checkStamp(r *Request) error {
	v := make([]value, s.fields.count)
	if err := s.fields.read(r.Body, v); err != nil {
		return err
	}
	if len(v[s.stamp]) == 0 {
		return errNoStamp
	}
	at, ok := unixMillis(string(v[s.stamp]))
	if !ok {
		return errStampForm
	}
	return s.window.check(at, r.Now)
}

func (s *declaredScheme) greet(r *Request) (*Response, error) {
	if s.d.greeting == nil {
		return nil, nil
	}
	return s.d.greeting(r)
}

func (s *declaredScheme) handshake(r *Request) (*Response, error) {
	if s.d.answering == nil {
		return nil, nil
	}
	return s.d.answering(r)
}

func (s *declaredScheme) identify(r *Request) (Identity, error) {
	var id Identity
	var v []value
	if s.fields.count > 0 {
		v = make([]value, s.fields.count)
		if err := s.fields.read(r.Body, v); err != nil {
			return Identity{}, err
		}
	}
	id.ID, id.Type = s.id.text(r.Header, v), s.typ.text(r.Header, v)
	switch {
	case s.d.readTime != nil:
		id.Time = s.d.readTime(v[s.at.slots[0]])
	case len(s.at.headers) > 0:
		id.Time, _ = anyStamp(s.at.text(r.Header, v))
	case len(s.at.slots) > 0:
		id.Time = v[s.at.slots[0]].anyTime()
	}
	return id, nil
}
