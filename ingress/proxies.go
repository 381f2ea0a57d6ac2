package ingress

import (
	"fmt"
	"net/netip"
	"strings"
)

// prefixes are the addresses of the proxies that we trust.
type prefixes []netip.Prefix

func parsePrefixes(texts []string) (prefixes, error) {
	var ps prefixes
	for _, text := range texts {
		if !strings.Contains(text, "/") {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("ingress.trusted_proxies: expected addresses or prefixes: %w", err)
			}
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("ingress.trusted_proxies: expected addresses or prefixes: %w", err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// include says whether the other end of a connection, host:port, is one of them.
func (ps prefixes) include(remote string) bool {
	if len(ps) == 0 {
		return false
	}
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	a := ap.Addr().Unmap().WithZone("")
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
