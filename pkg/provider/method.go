package provider

import (
	"net/http"
	"slices"
	"strings"
)

// Accepts says whether the provider calls with this request method: to deliver, or to probe.
func (p *Provider) Accepts(method string) bool {
	return p.delivers(method) || slices.Contains(p.HandshakeMethods, method)
}

// Allow lists the accepted methods, as the Allow header wants them.
func (p *Provider) Allow() string {
	methods := p.Methods
	if methods == nil {
		methods = []string{http.MethodPost}
	}
	return strings.Join(append(slices.Clip(methods), p.HandshakeMethods...), ", ")
}
