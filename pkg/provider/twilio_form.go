package provider

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

// formParameter is one field of a form or a query, decoded.
type formParameter struct{ name, value string }

// parameters are those of a form, sorted by name and value, each pair once: what Twilio signs.
type parameters []formParameter

// maxParameters is far above what Twilio sends, and bounds what an unsigned request can cost.
const maxParameters = 1000

// formParameters decodes a form as every reader of it does: a + is a space, %XX a byte. What is no form is refused, for
// readers differ in what they make of it.
func formParameters(text string) (parameters, bool) {
	var all parameters
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, false
		}
		if len(all) == maxParameters {
			return nil, false
		}
		all = append(all, formParameter{name, value})
	}
	slices.SortFunc(all, func(a, b formParameter) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	return slices.Compact(all), true
}

// has says whether a parameter of that name is there, however often.
func (p parameters) has(name string) bool {
	return slices.ContainsFunc(p, func(one formParameter) bool { return one.name == name })
}

// only is the value of a parameter that is there once; of one with several values, none.
func (p parameters) only(name string) string {
	i, ok := slices.BinarySearchFunc(p, name, func(one formParameter, name string) int { return strings.Compare(one.name, name) })
	if !ok || i+1 < len(p) && p[i+1].name == name {
		return ""
	}
	return p[i].value
}

// first is the first of these parameters that is there.
func (p parameters) first(names ...string) string {
	for _, name := range names {
		if v := p.only(name); v != "" {
			return v
		}
	}
	return ""
}

// portForms gives a URL without a port and with one, the scheme's own where it has none: Twilio signs now the one,
// now the other.
func portForms(text string) [2]string {
	scheme, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, tail := rest[:end], rest[end:]
	port := ":443"
	if scheme == "http" {
		port = ":80"
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i:]
	}
	return [2]string{scheme + "://" + host + tail, scheme + "://" + host + port + tail}
}
