package nemesis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

// providerKinds are what happens between the providers and the ingresses, and what strangers do there.
func providerKinds() []Kind {
	links := []string{"providers→ingress-1", "providers→ingress-2"}
	return []Kind{
		{Name: "providers-cut", What: "the providers' connections are reset, again and again", Needs: []string{providers}, Targets: links, Min: 1 * second, Max: 3 * second, begin: providersCut},
		{Name: "providers-hear-nothing", What: "requests arrive, and the answers do not come back", Needs: []string{providers}, Targets: links, Min: 2 * second, Max: 5 * second, begin: hearNothing},
		{Name: "providers-slow", What: "the providers' lines are slow", Needs: []string{providers}, Targets: links, Min: 2 * second, Max: 5 * second, begin: linkMode(wire.Mode{Latency: 250 * time.Millisecond})},
		{Name: "flood", What: "strangers send requests as fast as they can", Needs: []string{providers}, Targets: targets(ingress, estate.Instances), Min: 2 * second, Max: 5 * second, begin: flood},
		{Name: "slow-senders", What: "five hundred connections send a byte a second", Needs: []string{providers}, Targets: targets(ingress, estate.Instances), Min: 4 * second, Max: 8 * second, begin: slowSenders},
	}
}

func providersCut(_ context.Context, w *work) (func(context.Context) error, error) {
	w.hold = cutting(w, w.Link(w.Target))
	return nil, nil
}

// hearNothing holds answers back, and at its end cuts the connections: what was acknowledged was never heard.
func hearNothing(_ context.Context, w *work) (func(context.Context) error, error) {
	k := w.Link(w.Target)
	k.Set(wire.Mode{HoldDown: true})
	return func(context.Context) error {
		k.Cut()
		k.Set(wire.Mode{})
		return nil
	}, nil
}

// flood posts what nobody signed to a source that is not there, and to nothing at all.
func flood(_ context.Context, w *work) (func(context.Context) error, error) {
	url := "http://" + w.Link("providers→"+w.Target).Address() + "/webhooks/nobody"
	body := bytes.Repeat([]byte("x"), 512)
	w.hold = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, w.Length)
		defer cancel()
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		defer client.CloseIdleConnections()
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for ctx.Err() == nil {
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
					if err != nil {
						return
					}
					resp, err := client.Do(r)
					if err != nil {
						_ = estate.Pause(ctx, 20*time.Millisecond)
						continue
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		all.Wait()
		return nil
	}
	return nil, nil
}

func slowSenders(ctx context.Context, w *work) (func(context.Context) error, error) {
	address := w.Link("providers→" + w.Target).Address()
	var open []net.Conn
	end := func(context.Context) error {
		for _, c := range open {
			_ = c.Close()
		}
		return nil
	}
	for range 500 {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", address)
		if c == nil || err != nil {
			continue // it refuses them: so it should
		}
		open = append(open, c)
		_, _ = fmt.Fprintf(c, "POST /webhooks/nobody HTTP/1.1\r\nHost: prove\r\nX-Slow: ")
	}
	w.hold = func(ctx context.Context) error {
		for until := time.Now().Add(w.Length); time.Now().Before(until); {
			for _, c := range open {
				_, _ = c.Write([]byte("x"))
			}
			if err := estate.Pause(ctx, time.Second); err != nil {
				return err
			}
		}
		return nil
	}
	return end, nil
}
