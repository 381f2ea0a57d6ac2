package provider_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/provider/providertest"
)

// BenchmarkReceive is one request of 2 KiB through verification and naming.
func BenchmarkReceive(b *testing.B) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, p := range provider.All {
		b.Run(p.Name, func(b *testing.B) {
			creds := p.NewCredentials()
			cfg := providertest.Config(p, creds)
			in := &provider.SignInput{Secret: creds.Signer, Options: creds.Options, URL: providertest.URL, Now: now, Sample: p.Sample(rand.New(rand.NewPCG(1, 4)), provider.SampleInput{Now: now})}
			if p.Name == "hmac" {
				cfg.HMAC = &provider.HMAC{Header: "X-Sig", Signed: "{timestamp}.{body}", TimestampHeader: "X-Time", IDHeader: "X-Id", TypeHeader: "X-Type"}
				in.HMAC = cfg.HMAC
			}
			in.Body = in.Sample.Body
			if n := 2048 - len(in.Body); n > 0 {
				in.Body = append(in.Body[:len(in.Body):len(in.Body)], bytes.Repeat([]byte(" "), n)...)
			}
			in.Body = in.Body[:max(2048, len(in.Sample.Body))]
			signed, err := p.Sign(in)
			require.NoError(b, err)
			src, err := provider.New(cfg)
			require.NoError(b, err)
			r := providertest.Request(signed, now)
			b.SetBytes(int64(len(r.Body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := src.Receive(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSample is what send spends on making and signing an event.
func BenchmarkSample(b *testing.B) {
	p, _ := provider.ByName("stripe")
	r := rand.New(rand.NewPCG(1, 4))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := p.Sample(r, provider.SampleInput{Seq: i, Now: time.Unix(1795435200, 0)})
		if _, err := p.Sign(&provider.SignInput{Secret: "s", Body: s.Body, Sample: s}); err != nil {
			b.Fatal(err)
		}
	}
}
