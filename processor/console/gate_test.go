package console

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func hashed(t *testing.T, password string) config.Secret {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return config.NewSecret(string(h))
}

func gateOf(t *testing.T, c settings.Console, local string) *gate {
	t.Helper()
	g, err := newGate(&settings.File{Console: c}, local)
	require.NoError(t, err)
	return g
}

// ask is a request from an address, with a login when name is set, and header lines.
func ask(g *gate, from, name, password string, headers ...string) (string, []string, error) {
	r := httptest.NewRequest("GET", "http://console.example/console/", nil)
	r.RemoteAddr = from
	if name != "" {
		r.SetBasicAuth(name, password)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Add(headers[i], headers[i+1])
		}
	}
	p, err := g.who(r)
	if err != nil {
		return "", nil, err
	}
	return p.name, p.roles, nil
}

func TestPasswords(t *testing.T) {
	g := gateOf(t, settings.Console{Users: []settings.ConsoleUser{
		{Name: "ada", Password: hashed(t, "correct horse"), Roles: []string{settings.ViewMetadata}},
		{Name: "bo", Password: hashed(t, "battery staple")},
		{Name: "proxied"},
	}}, "me")
	const from = "192.0.2.1:4000"
	for range 2 { // the second time from memory
		name, roles, err := ask(g, from, "ada", "correct horse")
		require.NoError(t, err)
		require.Equal(t, "ada", name)
		require.Equal(t, []string{settings.ViewMetadata}, roles)
	}
	_, roles, err := ask(g, from, "bo", "battery staple")
	require.NoError(t, err)
	require.Empty(t, roles)
	for _, wrong := range [][2]string{{"ada", "battery staple"}, {"ada", ""}, {"proxied", ""}, {"eve", "correct horse"}, {"ada", "correct horse\x00"}} {
		_, _, err := ask(g, from, wrong[0], wrong[1])
		require.ErrorIs(t, err, errUnknown, wrong)
	}
	_, _, err = ask(g, "127.0.0.1:1", "", "", "Host", "localhost")
	require.ErrorIs(t, err, errUnknown, "with users, nobody is known for being local")
	_, _, err = ask(g, from, "", "", "X-Forwarded-User", "ada")
	require.ErrorIs(t, err, errUnknown, "there is no proxy")
}

func TestFailedLoginsAreLimited(t *testing.T) {
	g := gateOf(t, settings.Console{Users: []settings.ConsoleUser{{Name: "ada", Password: hashed(t, "correct horse")}, {Name: "bo", Password: hashed(t, "battery staple")}}}, "")
	now := time.Now()
	g.now = func() time.Time { return now }
	_, _, err := ask(g, "192.0.2.1:1", "bo", "battery staple")
	require.NoError(t, err)
	for range failuresAllowed {
		_, _, err := ask(g, "192.0.2.1:1", "ada", "guess")
		require.ErrorIs(t, err, errUnknown)
	}
	_, _, err = ask(g, "192.0.2.1:2", "ada", "correct horse")
	require.ErrorIs(t, err, errTooOften, "even the right one, or it would tell")
	_, _, err = ask(g, "192.0.2.1:2", "bo", "battery staple")
	require.NoError(t, err, "who was in stays in")
	_, _, err = ask(g, "192.0.2.2:1", "ada", "correct horse")
	require.NoError(t, err, "from elsewhere")
	now = now.Add(failureWindow + time.Second)
	_, _, err = ask(g, "192.0.2.1:1", "ada", "guess")
	require.ErrorIs(t, err, errUnknown, "it was a minute")

	for i := range 2 * failuresAllowed { // one network of IPv6 is one address
		_, _, err = ask(g, fmt.Sprintf("[2001:db8::%x]:1", i+1), "ada", "guess")
	}
	require.ErrorIs(t, err, errTooOften)
	for i := range addressesKept + 10 {
		g.failed(network(lastForwarded(map[string][]string{"X-Forwarded-For": {fmt.Sprintf("10.1.%d.%d", i/256, i%256)}}, network4)))
	}
	require.LessOrEqual(t, len(g.failures), addressesKept)
	for i := range loginsKept + 10 {
		g.remember([32]byte{byte(i), byte(i >> 8)})
	}
	require.LessOrEqual(t, len(g.logins), loginsKept)
}

func TestProxy(t *testing.T) {
	g := gateOf(t, settings.Console{
		Users: []settings.ConsoleUser{{Name: "ada", Roles: []string{settings.ViewMetadata}}, {Name: "bo", Password: hashed(t, "battery staple")}},
		Proxy: &settings.ConsoleProxy{Addresses: []string{"10.0.0.0/8", "::1"}, Header: "X-User"},
	}, "me")
	name, roles, err := ask(g, "10.2.3.4:1", "", "", "X-User", "ada")
	require.NoError(t, err)
	require.Equal(t, "ada", name)
	require.Equal(t, []string{settings.ViewMetadata}, roles)
	name, roles, err = ask(g, "[::ffff:10.2.3.4]:1", "", "", "X-User", "someone@example.com")
	require.NoError(t, err)
	require.Equal(t, "someone@example.com", name)
	require.Empty(t, roles, "denied by default")
	for _, c := range [][]string{
		{"192.0.2.1:1", "X-User", "ada"},                      // not the proxy
		{"10.2.3.4:1", "X-User", "ada", "X-User", "bo"},       // who?
		{"10.2.3.4:1", "X-User", ""},                          // nobody
		{"10.2.3.4:1", "X-User", "a\u202eda"},                 // not printable
		{"10.2.3.4:1"},                                        // the proxy says nothing
		{"192.0.2.1:1", "X-Forwarded-User", "ada"},            // another header
		{"127.0.0.1:1", "Host", "localhost", "X-User", "ada"}, // local, and not the proxy
	} {
		_, _, err := ask(g, c[0], "", "", c[1:]...)
		require.ErrorIs(t, err, errUnknown, c)
	}
	for range failuresAllowed {
		_, _, err = ask(g, "10.2.3.4:1", "bo", "guess", "X-Forwarded-For", "1.2.3.4, 192.0.2.7")
	}
	require.ErrorIs(t, err, errUnknown)
	_, _, err = ask(g, "10.2.3.4:1", "bo", "guess", "X-Forwarded-For", "192.0.2.7")
	require.ErrorIs(t, err, errTooOften)
	_, _, err = ask(g, "10.2.3.4:1", "bo", "battery staple", "X-Forwarded-For", "192.0.2.8")
	require.NoError(t, err, "another client of the same proxy")
}

var network4 = netip.MustParseAddr("192.0.2.9")

func TestThisMachineOnly(t *testing.T) {
	g := gateOf(t, settings.Console{}, "me@here")
	for _, host := range []string{"localhost:9090", "127.0.0.1:9090", "[::1]:9090", "LocalHost", "[::1]", "127.9.9.9"} {
		name, roles, err := ask(g, "127.0.0.1:1", "", "", "Host", host)
		require.NoError(t, err, host)
		require.Equal(t, "me@here", name)
		require.Equal(t, settings.AllRoles, roles)
	}
	for _, c := range [][]string{
		{"192.0.2.1:1", "Host", "localhost:9090"},
		{"127.0.0.1:1", "Host", "evil.example:9090"}, // a name that was made to lead here
		{"127.0.0.1:1", "Host", "localhost.evil.example"},
		{"127.0.0.1:1", "Host", "192.0.2.1"},
		{"127.0.0.1:1", "Host", ""},
		{"127.0.0.1:1", "Host", "localhost", "X-Forwarded-For", "192.0.2.1"}, // a proxy on this machine
		{"127.0.0.1:1", "Host", "localhost", "Via", "1.1 nginx"},
	} {
		_, _, err := ask(g, c[0], "", "", c[1:]...)
		require.ErrorIs(t, err, errNotLocal, c)
	}
}

func TestHashPassword(t *testing.T) {
	h, err := HashPassword("correct horse")
	require.NoError(t, err)
	require.NoError(t, bcrypt.CompareHashAndPassword([]byte(h), []byte("correct horse")))
	for _, bad := range []string{"", "short", string(make([]byte, 73))} {
		_, err := HashPassword(bad)
		require.Error(t, err)
	}
}
