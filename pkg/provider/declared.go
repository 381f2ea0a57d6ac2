package provider

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// declared is a preset that is data: a MAC in a header, and where the event's names stand. Its fields are those of
// a source's section hmac, so that what a preset does, a source of provider hmac can do as well.
type declared struct {
	HMAC
	// id, typ and at say where the names stand: "header:Name", a body member as a path with dots, or nothing.
	id, typ, at string
	// readStamp reads the signed timestamp; nil: Unix seconds. writeStamp is its counterpart.
	readStamp  func(text string) (time.Time, bool)
	writeStamp func(t time.Time) string
	// readTime reads the event's time; nil: Unix seconds or milliseconds, or RFC 3339.
	readTime func(v value) time.Time
	// greeting answers what is no delivery; nil: there is no such request.
	greeting func(r *Request) (*Response, error)
	// answering answers a verified request that carries no event; nil: all carry one.
	answering func(r *Request) (*Response, error)
}

type declaredScheme struct {
	*hmacScheme
	d           *declared
	fields      *fields
	id, typ, at int // places in fields; noSlot: none or in a header
	idHeader    string
	typHeader   string
	timeHeader  string
}

// splitPlace takes "header:Name" apart.
func splitPlace(place string) (header, path string) {
	if name, ok := strings.CutPrefix(place, "header:"); ok {
		return http.CanonicalHeaderKey(name), ""
	}
	return "", place
}

// rules are d's, which are right by construction: the tests open every preset.
func (d *declared) rules() hmacRules {
	c := d.HMAC
	c.IDHeader, _ = splitPlace(d.id)
	c.TypeHeader, _ = splitPlace(d.typ)
	rules, errs := newHMACRules(&c)
	if len(errs) > 0 {
		panic(errs[0]) //nolint:forbidigo // a preset that is wrong by construction: the tests open every one
	}
	rules.readStamp, rules.writeStamp = unixSeconds, func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	if d.readStamp != nil {
		rules.readStamp = d.readStamp
	}
	if d.writeStamp != nil {
		rules.writeStamp = d.writeStamp
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
	s := &declaredScheme{hmacScheme: inner, d: d, fields: &fields{}, id: noSlot, typ: noSlot, at: noSlot}
	place := func(where string, header *string, slot *int) {
		var path string
		if *header, path = splitPlace(where); path != "" {
			*slot = s.fields.add(strings.Split(path, "."))
		}
	}
	place(d.id, &s.idHeader, &s.id)
	place(d.typ, &s.typHeader, &s.typ)
	place(d.at, &s.timeHeader, &s.at)
	opened.scheme = s
	return opened
}

func (d *declared) sign(in *SignInput) (Signed, error) { return signRules(in, d.rules()) }

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
	var space [4]value
	v := space[:s.fields.count]
	if len(v) > 0 {
		if err := s.fields.read(r.Body, v); err != nil {
			return Identity{}, err
		}
	}
	text := func(header string, slot int) string {
		switch {
		case header != "":
			return get(r.Header, header)
		case slot != noSlot:
			return v[slot].text()
		}
		return ""
	}
	id.ID, id.Type = text(s.idHeader, s.id), text(s.typHeader, s.typ)
	switch {
	case s.timeHeader != "":
		id.Time, _ = anyStamp(get(r.Header, s.timeHeader))
	case s.at == noSlot:
	case s.d.readTime != nil:
		id.Time = s.d.readTime(v[s.at])
	default:
		id.Time = v[s.at].anyTime()
	}
	return id, nil
}
