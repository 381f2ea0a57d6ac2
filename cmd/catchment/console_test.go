package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/catchment-dev/catchment/pkg/proctest"
)

func TestHashPassword(t *testing.T) {
	var out, stderr bytes.Buffer
	a := &app{out: &out, err: &stderr, in: strings.NewReader("correct horse\n"), output: "table"}
	require.NoError(t, a.hashPassword())
	require.NoError(t, bcrypt.CompareHashAndPassword([]byte(strings.TrimSpace(out.String())), []byte("correct horse")))
	a.in = strings.NewReader("short\n")
	require.ErrorContains(t, a.hashPassword(), "at least 8")
}

// TestConsoleAlone serves the console by itself, beside an office.
func TestConsoleAlone(t *testing.T) {
	o := newOffice(t)
	code, _, stderr := tool(t, "console", "--config", o.config)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "hash-password")

	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), 8)
	require.NoError(t, err)
	address := proctest.FreeAddress(t)
	text, err := os.ReadFile(o.config)
	require.NoError(t, err)
	config := writeConfig(t, string(text)+"console: {listen: \""+address+"\", users: [{name: ada, password: \""+string(hash)+"\", roles: [view-metadata]}]}\n")
	o.receive("evt_1", "paid", `{"amount": 5, "order": "o", "v": 1}`)
	o.eventually(1, `SELECT count(*) FROM catchment.bodies`)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	ended := make(chan int, 1)
	go func() { ended <- execute(ctx, []string{"console", "--config", config}, &out, &errs) }()
	ask := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
		require.NoError(t, err)
		req.SetBasicAuth("ada", "correct horse")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, ""
		}
		defer func() { _ = resp.Body.Close() }()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		return resp.StatusCode, b.String()
	}
	require.Eventually(t, func() bool { status, _ := ask("/livez"); return status == http.StatusOK }, time.Minute, 50*time.Millisecond, "%s", errs.String())
	status, page := ask("/console/")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "evt_1")
	status, places := ask("/console/event/places?source=shop&id=evt_1")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, places, "not yet")
	cancel()
	require.Zero(t, <-ended)
}
