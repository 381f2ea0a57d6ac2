package provider

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// tokenScheme is what schemes have in common that show a value which both sides know, and sign nothing.
type tokenScheme struct {
	noHandshake
	header string // canonical
	tokens tokens
	// read takes the value out of the header; nil: it is the whole of it.
	read func(header string) (string, bool)
}

func (s *tokenScheme) verify(_ context.Context, r *Request) (proof, error) {
	text := get(r.Header, s.header)
	if text != "" && s.read != nil {
		var ok bool
		if text, ok = s.read(text); !ok {
			return proof{}, errTokenForm
		}
	}
	key, err := s.tokens.find(r.Now, text)
	return proof{key: key}, err
}

func (s *tokenScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

// headerOption reads the option header, and returns the name in its canonical form.
func (o *opening) headerOption(fallback string) string {
	text := o.text("header", fallback)
	if text != "" && !isToken(text) {
		o.errorf("options.header", "%q is no header name", text)
	}
	return http.CanonicalHeaderKey(text)
}

// signHeader is what Options say of a header that Sign writes.
func signHeader(in *SignInput, fallback string) string {
	if name, ok := in.Options["header"].(string); ok {
		return http.CanonicalHeaderKey(name)
	}
	return fallback
}

// authorization takes the credentials of that scheme out of an Authorization header. The scheme's name is the same in
// upper and in lower case (RFC 9110).
func authorization(header, scheme string) (string, bool) {
	name, rest, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(name, scheme) {
		return "", false
	}
	rest = strings.TrimLeft(rest, " ")
	return rest, rest != "" && visible(rest)
}

// parameter reads a query parameter, which may be there once.
func parameter(query, name string) (string, error) {
	if !strings.Contains(query, "=") {
		return "", nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errQueryForm
	}
	switch v := values[name]; len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	}
	return "", errRepeatedParameter
}

// withParameter adds a parameter to a URL.
func withParameter(target, name, value string) string {
	sep := "?"
	if strings.Contains(target, "?") {
		sep = "&"
	}
	return target + sep + url.QueryEscape(name) + "=" + url.QueryEscape(value)
}
