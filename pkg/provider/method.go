package provider

import (
	"net/http"
	"strings"
)

// Accepts says whether the provider sends with this request method.
func (p *Provider) Accepts(method string) bool { return p.accepts(method) }

// Allow lists the accepted methods, as the Allow header wants them.
func (p *Provider) Allow() string {
	if p.Methods == nil {
		return http.MethodPost
	}
	return strings.Join(p.Methods, ", ")
}
