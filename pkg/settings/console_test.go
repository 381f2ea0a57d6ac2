package settings

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const hash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"

func console(t *testing.T, text string) (*File, error) {
	t.Helper()
	return Parse("catchment.yaml", []byte("console: "+text), NeedConsole)
}

func TestConsole(t *testing.T) {
	f, err := console(t, `{}`)
	require.NoError(t, err)
	require.False(t, f.Console.Enabled())
	require.Equal(t, "127.0.0.1:9094", f.Console.Listen)

	f, err = console(t, `{users: [{name: ada, password: "`+hash+`", roles: [view-metadata, operate]}, {name: bo}]}`)
	require.NoError(t, err)
	require.True(t, f.Console.Enabled())
	require.Equal(t, hash, f.Console.Users[0].Password.Reveal())
	require.Empty(t, f.Console.Users[1].Roles, "nothing by default")

	f, err = console(t, `{proxy: {addresses: [10.0.0.0/8, "::1"]}}`)
	require.NoError(t, err)
	require.True(t, f.Console.Enabled())
	require.Equal(t, "X-Forwarded-User", f.Console.Proxy.Header)
	require.Empty(t, f.Console.Proxy.Roles)

	f, err = console(t, `{users: [{name: ada, roles: [view-metadata]}]}`)
	require.NoError(t, err)
	require.False(t, f.Console.Enabled(), "nobody could log in")

	for text, want := range map[string]string{
		`{users: [{name: ada, password: secret}]}`:                               "expected a bcrypt hash",
		`{users: [{name: ada, password: "$2a$04$` + hash[7:] + `"}]}`:            "of cost 8 to 15",
		`{users: [{name: "a:b"}]}`:                                               "without a colon",
		`{users: [{name: ada}, {name: ada}]}`:                                    "another user named",
		`{users: [{name: ada, roles: [operate]}]}`:                               "expected view-metadata among the roles",
		`{users: [{name: ada, roles: [root]}]}`:                                  "root",
		`{users: [{password: "` + hash + `"}]}`:                                  "name",
		`{proxy: {addresses: [everywhere]}}`:                                     "expected an address or a prefix",
		`{proxy: {addresses: []}}`:                                               "expected at least one address",
		`{proxy: {addresses: [10.0.0.1], header: "X User"}}`:                     "expected a header's name",
		`{proxy: {addresses: [10.0.0.1], roles: [view-payload]}}`:                "expected view-metadata among the roles",
		`{listen: nowhere}`:                                                      "expected host:port",
		`{users: [{name: ada, password: "file:/there/is/no/such/file"}]}`:        "no such file",
		`{proxy: {addresses: [10.0.0.1], header: X-User, roles: [nothing-big]}}`: "nothing-big",
	} {
		_, err := console(t, text)
		require.ErrorContains(t, err, want, text)
	}
}
