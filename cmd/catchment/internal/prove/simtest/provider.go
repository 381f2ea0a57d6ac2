package simtest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/pkg/run"
)

// sources are the simulated providers, with their secrets.
var sources = map[string]string{"shop": "whisper-of-the-shop", "bank": "whisper-of-the-bank"}

// sent is an event as its provider knows it.
type sent struct {
	key
	entity  string
	version int64
	body    string
	again   []time.Duration // when it is sent once more, after it was acknowledged
	at      time.Duration   // when it is sent first
	forged  bool
}

// accept is an answer of 2xx.
type accept struct {
	key
	delivery  string
	duplicate bool
	sha       string
	at        time.Time
}

// journal is what the providers know.
type journal struct {
	mu       sync.Mutex
	accepted []accept
	forged   int // forgeries that were taken
	attempts int
	unknown  int
	givenUp  []key
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// story makes what the providers will send.
func story(rng *rand.Rand, events int) []sent {
	var list []sent
	for i := range events {
		source := []string{"shop", "bank"}[rng.IntN(2)]
		e := sent{key: key{source, fmt.Sprintf("evt_%03d", i)}, entity: fmt.Sprintf("order-%d", rng.IntN(5)), version: int64(rng.IntN(8)), at: time.Duration(rng.IntN(35_000)) * time.Millisecond}
		e.body = content(rng, &e)
		for range rng.IntN(3) {
			e.again = append(e.again, time.Duration(rng.IntN(40_000))*time.Millisecond)
		}
		list = append(list, e)
		if rng.IntN(4) == 0 { // another provider's event of the same ID
			twin := e
			twin.source = map[string]string{"shop": "bank", "bank": "shop"}[source]
			twin.entity, twin.at = "twin-"+e.entity, time.Duration(rng.IntN(35_000))*time.Millisecond
			twin.body = content(rng, &twin)
			list = append(list, twin)
		}
		if rng.IntN(8) == 0 {
			f := e
			f.id, f.forged, f.again = "forged_"+e.id, true, nil
			f.body = content(rng, &f)
			list = append(list, f)
		}
	}
	return list
}

// content has spaces and an order of members that no JSON encoder makes.
func content(rng *rand.Rand, e *sent) string {
	return fmt.Sprintf("{ \"version\": %d,\n  \"kind\":\"order\",  \"pad\": %q, \"order\":%q , \"id\": %q}\n",
		e.version, strings.Repeat(string('a'+rune(rng.IntN(26))), rng.IntN(200)), e.entity, e.id)
}

func sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// provider sends what the story says, and tries again until it is heard.
type provider struct {
	journal
	client *http.Client
	urls   []string
	giveUp time.Duration
}

// tell sends an event, and its repetitions.
func (p *provider) tell(ctx context.Context, e *sent, rng *rand.Rand) {
	if !run.Pause(ctx, e.at) {
		return
	}
	if e.forged {
		if ok, _ := p.attempt(ctx, e, rng.IntN(len(p.urls)), "another secret"); ok {
			p.mu.Lock()
			p.forged++
			p.mu.Unlock()
		}
		return
	}
	if !p.deliver(ctx, e, rng) {
		return
	}
	for _, d := range e.again {
		if !run.Pause(ctx, d) || !p.deliver(ctx, e, rng) {
			return
		}
	}
}

func (p *provider) deliver(ctx context.Context, e *sent, rng *rand.Rand) bool {
	began, at := time.Now(), rng.IntN(len(p.urls))
	for time.Since(began) < p.giveUp {
		ok, after := p.attempt(ctx, e, at, sources[e.source])
		if ok {
			return true
		}
		if rng.IntN(2) == 0 {
			at = rng.IntN(len(p.urls))
		}
		if !run.Pause(ctx, min(after, time.Duration(500+rng.IntN(5_000))*time.Millisecond)) {
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.givenUp = append(p.givenUp, e.key)
	return false
}

func (p *provider) attempt(ctx context.Context, e *sent, at int, secret string) (ok bool, after time.Duration) {
	after = 5 * time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.urls[at]+"/webhooks/"+e.source, strings.NewReader(e.body))
	if err != nil {
		return false, after
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Signature", sign(secret, e.body))
	resp, err := p.client.Do(req)
	p.mu.Lock()
	p.attempts++
	p.mu.Unlock()
	if err != nil {
		p.count()
		return false, after
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.count()
		return false, after
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		after = time.Duration(s) * time.Second
	}
	if resp.StatusCode/100 != 2 {
		return false, after
	}
	var answer struct{ Status string }
	_ = json.Unmarshal(body, &answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = append(p.accepted, accept{e.key, resp.Header.Get("Catchment-Delivery-Id"), answer.Status == "duplicate", digest([]byte(e.body)), time.Now()})
	return true, 0
}

func (p *provider) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unknown++
}
