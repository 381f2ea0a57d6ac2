package console

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// person is who makes a request.
type person struct {
	name  string
	roles []string
}

func (p *person) may(role string) bool { return slices.Contains(p.roles, role) }

// What the gate refuses with.
var (
	errUnknown  = errors.New("who are you?")
	errTooOften = errors.New("too many failed logins: wait a minute")
	errNotLocal = errors.New("this console has no users and answers on this machine only: see docs/console.md for how to give it some")
	errBusy     = errors.New("too many logins at once: try again")
)

// Bounds on logins. A password is hashed slowly on purpose, so few at once; what was right is remembered for a while.
const (
	failuresAllowed = 10
	failureWindow   = time.Minute
	addressesKept   = 4096
	hashersAtOnce   = 2
	hasherPatience  = 5 * time.Second
	loginsKept      = 256
	loginKept       = 10 * time.Minute
	longestPassword = 72 // of bcrypt
)

// gate says who makes a request.
type gate struct {
	users   map[string]account
	decoy   []byte // a hash that no password has, for names that there are not
	proxy   []netip.Prefix
	header  string
	others  []string // roles of the proxy's users that are not listed
	local   string
	hashing chan struct{}
	key     []byte // of logins
	now     func() time.Time

	mu       sync.Mutex
	failures map[netip.Prefix]*failure
	logins   map[[32]byte]time.Time // digests of name and password that were right, until when that is remembered
}

type account struct {
	hash  []byte
	roles []string
}

type failure struct {
	n     int
	since time.Time
}

func newGate(cfg *settings.File, local string) (*gate, error) {
	g := &gate{
		users: map[string]account{}, hashing: make(chan struct{}, hashersAtOnce), key: randomBytes(32), now: time.Now,
		failures: map[netip.Prefix]*failure{}, logins: map[[32]byte]time.Time{},
	}
	cost := bcrypt.MinCost
	for _, u := range cfg.Console.Users {
		a := account{roles: u.Roles, hash: []byte(u.Password.Reveal())}
		if n, err := bcrypt.Cost(a.hash); err == nil {
			cost = max(cost, n)
		}
		g.users[u.Name] = a
	}
	var errs config.Errors
	if p := cfg.Console.Proxy; p != nil {
		g.header, g.others = p.Header, p.Roles
		for _, text := range p.Addresses {
			prefix, err := settings.ParsePrefix(text)
			if err != nil {
				errs = append(errs, cfg.Errorf("console.proxy.addresses", "%v", err))
			}
			g.proxy = append(g.proxy, prefix.Masked())
		}
	}
	if !cfg.Console.Enabled() {
		g.local = local
	} else {
		var err error
		if g.decoy, err = bcrypt.GenerateFromPassword(randomBytes(16), cost); err != nil {
			return nil, err
		}
	}
	return g, errs.Err()
}

// who says who makes the request.
func (g *gate) who(r *http.Request) (*person, error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, errUnknown
	}
	from := peer.Addr().Unmap()
	if g.local != "" {
		if !from.IsLoopback() || !localHost(r.Host) || forwarded(r.Header) {
			return nil, errNotLocal
		}
		return &person{g.local, settings.AllRoles}, nil
	}
	if slices.ContainsFunc(g.proxy, func(p netip.Prefix) bool { return p.Contains(from) }) {
		if names := r.Header.Values(g.header); len(names) > 0 {
			return g.known(names)
		}
		from = lastForwarded(r.Header, from)
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		return nil, errUnknown
	}
	return g.login(r.Context(), from, name, password)
}

// known is whom the proxy names.
func (g *gate) known(names []string) (*person, error) {
	if len(names) != 1 || !settings.UserName(names[0]) {
		return nil, errUnknown
	}
	if a, ok := g.users[names[0]]; ok {
		return &person{names[0], a.roles}, nil
	}
	return &person{names[0], g.others}, nil
}

func (g *gate) login(ctx context.Context, from netip.Addr, name, password string) (*person, error) {
	mac := hmac.New(sha256.New, g.key)
	mac.Write([]byte(name + "\x00" + password))
	digest := [32]byte(mac.Sum(nil))
	a, ok := g.users[name]
	ok = ok && len(a.hash) > 0
	if ok && g.remembers(digest) {
		return &person{name, a.roles}, nil
	}
	address := network(from)
	if g.blocked(address) {
		return nil, errTooOften
	}
	patience, cancel := context.WithTimeout(ctx, hasherPatience)
	defer cancel()
	select {
	case g.hashing <- struct{}{}:
		defer func() { <-g.hashing }()
	case <-patience.Done():
		return nil, errBusy
	}
	if g.blocked(address) { // meanwhile
		return nil, errTooOften
	}
	hash := a.hash
	if !ok {
		hash = g.decoy
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok || len(password) > longestPassword {
		g.failed(address)
		return nil, errUnknown
	}
	g.remember(digest)
	return &person{name, a.roles}, nil
}

func (g *gate) remembers(digest [32]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now().Before(g.logins[digest])
}

func (g *gate) remember(digest [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.logins) >= loginsKept {
		clear(g.logins)
	}
	g.logins[digest] = g.now().Add(loginKept)
}

func (g *gate) blocked(address netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.failures[address]
	return f != nil && f.n >= failuresAllowed && g.now().Sub(f.since) < failureWindow
}

func (g *gate) failed(address netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	f := g.failures[address]
	if f == nil || now.Sub(f.since) >= failureWindow {
		if f == nil && len(g.failures) >= addressesKept {
			g.forget(now)
		}
		f = &failure{since: now}
		g.failures[address] = f
	}
	f.n++
}

// forget makes room: what is over goes, or else all.
func (g *gate) forget(now time.Time) {
	for address, f := range g.failures {
		if now.Sub(f.since) >= failureWindow {
			delete(g.failures, address)
		}
	}
	if len(g.failures) >= addressesKept {
		clear(g.failures)
	}
}

// network is what counts as one address: a /64 with IPv6.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// localHost says whether a Host names this machine. A page elsewhere can have a name of its own lead to a loopback address,
// and its scripts then read what answers to that name.
func localHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	ip, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && ip.IsLoopback()
}

// forwarded says whether somebody passes the request on for another, who may be anywhere.
func forwarded(h http.Header) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if len(h.Values(name)) > 0 {
			return true
		}
	}
	return false
}

// lastForwarded is the address that a trusted proxy has seen.
func lastForwarded(h http.Header, fallback netip.Addr) netip.Addr {
	values := h.Values("X-Forwarded-For")
	if len(values) == 0 {
		return fallback
	}
	list := strings.Split(values[len(values)-1], ",")
	if a, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1])); err == nil {
		return a.Unmap()
	}
	return fallback
}

// HashPassword makes what stands in console.users for a password.
func HashPassword(password string) (string, error) {
	switch {
	case len(password) < 8:
		return "", errors.New("expected a password of at least 8 characters")
	case len(password) > longestPassword:
		return "", errors.New("expected a password of at most 72 bytes")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), hashCost)
	return string(hash), err
}

const hashCost = 12 // a quarter of a second
