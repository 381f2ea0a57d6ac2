package provider

import (
	"net/url"
	"strings"
)

// publicURL is the URL under which the provider knows us. What it signs is the text, so it is never re-encoded.
type publicURL struct {
	text     string
	origin   bool // no path: the request's is appended
	hasQuery bool
}

// publicURL reads the option; nil when none is configured. A lone slash behind the host counts as no path.
func (o *opening) publicURL() *publicURL {
	text, name := o.PublicURL, "public_url"
	if option, ok := o.Options["public_url"]; ok {
		if text != "" {
			o.errorf("options.public_url", "is given twice")
		}
		text, _ = option.(string)
		name = "options.public_url"
	} else if text == "" {
		return nil
	}
	p := newPublicURL(text)
	if p == nil {
		o.errorf(name, "expected a URL such as https://hooks.example.com, without user or fragment")
	}
	return p
}

// newPublicURL returns nil for what is no such URL.
func newPublicURL(text string) *publicURL {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Contains(text, "#") || (u.Scheme != "https" && u.Scheme != "http") {
		return nil
	}
	p := &publicURL{text: text, hasQuery: strings.Contains(text, "?")}
	if !p.hasQuery && strings.Trim(u.EscapedPath(), "/") == "" {
		p.text, p.origin = strings.TrimRight(text, "/"), true
	}
	return p
}

// CalledURL is the URL that a provider calls when public_url is configured and the request arrives with this path and
// query; empty when public_url is no such URL.
func CalledURL(publicURL, path, query string) string {
	p := newPublicURL(publicURL)
	if p == nil {
		return ""
	}
	return p.of(&Request{Path: path, RawQuery: query})
}

// of is the URL that the provider called to send r.
func (p *publicURL) of(r *Request) string {
	switch {
	case p.hasQuery:
		return p.text
	case p.origin:
		return withQuery(p.text+r.Path, r.RawQuery)
	}
	return withQuery(p.text, r.RawQuery)
}

func withQuery(url, query string) string {
	if query == "" {
		return url
	}
	return url + "?" + query
}
