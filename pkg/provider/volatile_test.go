package provider

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSameEvent(t *testing.T) {
	p := &Provider{Volatile: []string{"tries", "data.at"}}
	first := `{"id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`
	for again, same := range map[string]bool{
		first: true,
		`{"id":"e","tries":2,"data":{"at":{"then":[1,2]},"n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:    true,
		`{"id":"e","tries":null,"data":{"at":"","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:             true,
		`{"id":"e","data":{"n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:                                  false,
		`{ "id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:            false,
		`{"id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"é"}`:                  false,
		`{"tries":1,"id":"e","data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:             false,
		`{"id":"e","tries":1,"data":{"at":"now","n":1,"list":[{"tries":1}]},"text":"\u00e9"}`:               false,
		`{"id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":2}]},"text":"\u00e9"}`:             false,
		`{"id":"e","tries":1,"at":"then","data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`: false,
		`{"id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"} {}`:          false,
		`{"id":"e","tries":1,"tries":2,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"}`:   false,
		`{"id":"e","tries":1,"data":{"at":"now","n":1.0,"list":[{"tries":1}]},"text":"\u00e9"`:              false,
		`{"id":["e"],"tries":1}`: false,
		``:                       false,
		`tries=2`:                false,
	} {
		require.Equal(t, same, p.SameEvent([]byte(first), []byte(again)), again)
		require.Equal(t, same, p.SameEvent([]byte(again), []byte(first)), again)
	}
	require.True(t, p.SameEvent([]byte("tries=1"), []byte("tries=1")), "no JSON: by its bytes")
	require.False(t, p.SameEvent([]byte("tries=1"), []byte("tries=2")))
	none := &Provider{}
	require.False(t, none.SameEvent([]byte(`{"a":1}`), []byte(`{ "a":1}`)), "nothing changes between retries: bytes count")
}

// What a preset names is there in what the provider sends: a retry's other value makes no other event, and any other change does.
func TestVolatileMembers(t *testing.T) {
	for _, p := range All {
		if len(p.Volatile) == 0 {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			s := p.sample(rand.New(rand.NewPCG(1, 2)), SampleInput{Now: time.Unix(1794000000, 0)})
			body := s.Body
			if p.split != nil {
				parts, err := p.split(&Request{Body: s.Body})
				require.NoError(t, err)
				body = parts[0].Body
			}
			for _, name := range p.Volatile {
				at := bytes.LastIndex(body, []byte(`"`+name+`":`))
				require.GreaterOrEqual(t, at, 0, "%s is not in %s", name, body)
				again := bytes.Join([][]byte{body[:at], body[at:]}, []byte(`"`+name+`_too":1,`))
				require.False(t, p.SameEvent(body, again), "%s", again)
				again = bytes.Replace(bytes.Clone(body), []byte(`"`+name+`":`), []byte(`"`+name+`":[0],"x":`), 1)
				require.False(t, p.SameEvent(body, again), "%s", again)
			}
			v := value(body)
			require.True(t, p.SameEvent(body, change(v, p.Volatile)))
		})
	}
}

// change gives the members other values.
func change(v value, names []string) []byte {
	for _, name := range names {
		from := bytes.LastIndex(v, []byte(`"`+name+`":`)) + len(name) + 3
		for v[from] == ' ' {
			from++
		}
		to := from
		for quoted := false; quoted || v[to] != ',' && v[to] != '}' && v[to] != '\n'; to++ {
			if v[to] == '"' {
				quoted = !quoted
			}
		}
		v = bytes.Join([][]byte{v[:from], []byte(`"changed"`), v[to:]}, nil)
	}
	return v
}
