package provider

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Limits of what is fetched: a request that nobody has verified yet makes us do it.
const (
	maxKeySize   = 64 << 10
	keyTimeout   = 3 * time.Second
	keyTTL       = time.Hour        // how long content is remembered
	failureTTL   = 10 * time.Second // how long a failure is
	freshAfter   = 30 * time.Second // how old content must be for Fresh to ask again
	maxKeys      = 256              // contents and failures remembered, the least used go first
	keyBurst     = 10               // look-ups of one source at once …
	keyInterval  = 6 * time.Second  // … and how often one more
	maxKeyHeader = 16 << 10
)

// NetworkKeys fetches over HTTPS from public addresses alone. It follows no redirect and uses no proxy, for behind a
// proxy nobody could tell which address is called. Contents are remembered, failures more briefly; who asks for
// what is being fetched waits for that; each source has a budget, so that made-up key names cost little.
type NetworkKeys struct {
	client *http.Client
	roots  *x509.CertPool
	now    func() time.Time

	mu      sync.Mutex
	entries map[string]*list.Element // by keyName; their values are *keyEntry
	recent  *list.List               // the same, the last used first
	budgets map[string]*keyBudget    // by Fetch.Source
}

type keyEntry struct {
	name    string
	done    chan struct{} // closed: what follows is there and does not change
	content []byte
	err     error
	at      time.Time // when content was fetched, or the failure seen
	checked time.Time // when the network was last asked
}

// keyBudget is a bucket of look-ups.
type keyBudget struct {
	left float64
	at   time.Time
}

// networkKeys is what all sources share whose Config.Keys is nil: a reload keeps what it remembers.
var networkKeys = sync.OnceValue(NewNetworkKeys)

// NewNetworkKeys has nothing remembered yet.
func NewNetworkKeys() *NetworkKeys {
	return newNetworkKeys(publicDialer(nil).DialContext, nil)
}

func newNetworkKeys(dial func(ctx context.Context, network, addr string) (net.Conn, error), roots *x509.CertPool) *NetworkKeys {
	return &NetworkKeys{
		client: &http.Client{
			Timeout:       keyTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxKeyHeader,
			},
		},
		roots: roots, now: time.Now,
		entries: map[string]*list.Element{}, recent: list.New(), budgets: map[string]*keyBudget{},
	}
}

// publicDialer looks at the address after the name has been resolved, when the connection is made: whatever DNS said
// before does not matter.
func publicDialer(resolver *net.Resolver) *net.Dialer {
	return &net.Dialer{
		Timeout: keyTimeout, Resolver: resolver,
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil || !publicAddress(at.Addr()) {
				return fmt.Errorf("%w: %s", errPrivateAddress, address)
			}
			return nil
		},
	}
}

// Roots are nil: the system's.
func (k *NetworkKeys) Roots() *x509.CertPool { return k.roots }

var (
	errFetchURL       = errors.New("not an https URL of a public host, without user, port or fragment")
	errPrivateAddress = errors.New("not a public address")
	errKeyStatus      = errors.New("unexpected status")
	errKeySize        = fmt.Errorf("longer than %d bytes", maxKeySize)
	errKeyBudget      = errors.New("too many look-ups for this source")
)

// Fetch gets what the URL serves, or what it served not long ago.
func (k *NetworkKeys) Fetch(ctx context.Context, f *Fetch) ([]byte, error) {
	if !publicURLForm(f.URL) {
		return nil, fmt.Errorf("fetch %q: %w", f.URL, errFetchURL)
	}
	e, err := k.entry(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", f.URL, err)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch %s: %w", f.URL, ctx.Err())
	}
	if e.err != nil {
		return nil, fmt.Errorf("fetch %s: %w", f.URL, e.err)
	}
	return e.content, nil
}

// keyName tells apart what may differ in content.
func keyName(f *Fetch) string {
	body := sha256.Sum256(f.Body)
	return f.Name + "\n" + f.Method + "\n" + f.URL.String() + "\n" + string(body[:])
}

// entry finds what is remembered or under way, or begins to fetch it.
func (k *NetworkKeys) entry(ctx context.Context, f *Fetch) (*keyEntry, error) {
	name, now := keyName(f), k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	var old *keyEntry
	if el, ok := k.entries[name]; ok {
		k.recent.MoveToFront(el)
		old = el.Value.(*keyEntry)
		if old.answers(f, now) {
			return old, nil
		}
	}
	usable := old != nil && old.err == nil && now.Sub(old.at) < keyTTL
	if !k.spend(f, now) {
		if usable {
			return old, nil
		}
		return nil, errKeyBudget
	}
	if !usable {
		old = nil
	}
	e := &keyEntry{name: name, done: make(chan struct{})}
	k.remember(e)
	// Others wait for it as well: it does not end with this request.
	go k.fill(context.WithoutCancel(ctx), e, f, old)
	return e, nil
}

// answers says whether the network need not be asked.
func (e *keyEntry) answers(f *Fetch, now time.Time) bool {
	select {
	case <-e.done:
	default:
		return true
	}
	switch {
	case e.err != nil:
		return now.Sub(e.at) < failureTTL
	case f.Fresh && now.Sub(e.checked) >= freshAfter:
		return false
	}
	return now.Sub(e.at) < keyTTL
}

func (k *NetworkKeys) remember(e *keyEntry) {
	if el, ok := k.entries[e.name]; ok {
		el.Value = e
		return
	}
	k.entries[e.name] = k.recent.PushFront(e)
	for len(k.entries) > maxKeys {
		last := k.recent.Back()
		k.recent.Remove(last)
		delete(k.entries, last.Value.(*keyEntry).name)
	}
}

// spend takes one look-up out of the source's budget.
func (k *NetworkKeys) spend(f *Fetch, now time.Time) bool {
	name := f.Source
	if name == "" {
		name = f.URL.Host
	}
	b, ok := k.budgets[name]
	if !ok {
		k.forgetBudgets(now)
		b = &keyBudget{left: keyBurst, at: now}
		k.budgets[name] = b
	}
	b.refill(now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *keyBudget) refill(now time.Time) {
	b.left = min(keyBurst, b.left+now.Sub(b.at).Seconds()/keyInterval.Seconds())
	b.at = now
}

// forgetBudgets lets go of those that are full again, once there are many.
func (k *NetworkKeys) forgetBudgets(now time.Time) {
	if len(k.budgets) < maxKeys {
		return
	}
	for name, b := range k.budgets {
		if b.refill(now); b.left >= keyBurst {
			delete(k.budgets, name)
		}
	}
}

// fill fetches; old is what stays when that fails.
func (k *NetworkKeys) fill(ctx context.Context, e *keyEntry, f *Fetch, old *keyEntry) {
	content, err := k.get(ctx, f)
	e.content, e.err, e.at = content, err, k.now()
	e.checked = e.at
	if err != nil && old != nil {
		e.content, e.err, e.at = old.content, nil, old.at
	}
	close(e.done)
}

func (k *NetworkKeys) get(ctx context.Context, f *Fetch) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	method := f.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, f.URL.String(), bytes.NewReader(f.Body))
	if err != nil {
		return nil, err
	}
	for name, values := range f.Header {
		req.Header[name] = values
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w %d", errKeyStatus, resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKeySize {
		return nil, errKeySize
	}
	return b, nil
}

// dnsName takes names with a dot whose last label begins with a letter: no address in any of its spellings.
var dnsName = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+(?i:[a-z]([a-z0-9-]{0,61}[a-z0-9])?)$`)

func publicURLForm(u *url.URL) bool {
	return u != nil && u.Scheme == "https" && u.User == nil && u.Opaque == "" && u.Fragment == "" && u.RawFragment == "" &&
		len(u.Host) <= 253 && dnsName.MatchString(u.Host)
}

// reserved are addresses of no public host, by the registries of special-purpose addresses. IPv6 is judged by what
// is handed out, 2000::/3, less what is not.
var reserved = func() []netip.Prefix {
	var p []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		p = append(p, netip.MustParsePrefix(text))
	}
	return p
}()

var globalIPv6 = netip.MustParsePrefix("2000::/3")

// publicAddress refuses IPv4 in IPv6 as well (mapped, NAT64, 6to4, Teredo): it leads to any IPv4 address.
func publicAddress(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || (a.Is6() && !globalIPv6.Contains(a)) {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
