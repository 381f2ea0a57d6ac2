package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// sampleZoom makes an event of a meeting.
func sampleZoom(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "meeting.started", "meeting.ended", "meeting.participant_joined")
	who, id := s.person(), s.unique(base62, 22)
	more := ""
	switch typ {
	case "meeting.ended":
		more = `,"end_time":"` + in.Now.UTC().Format(time.RFC3339) + `"`
	case "meeting.participant_joined":
		more = fmt.Sprintf(`,"participant":{"user_id":"%d","user_name":"%s %s","id":"%s","email":"%s","join_time":"%s"}`,
			16_000_000+r.IntN(1_000_000), who.first, who.last, s.random(base62, 22), who.mail, in.Now.UTC().Format(time.RFC3339))
	}
	body := fmt.Appendf(nil, `{"event":"%s","payload":{"account_id":"%s","object":{"id":"%d","uuid":"%s==","host_id":"%s","topic":"%s","type":2,`+
		`"start_time":"%s","timezone":"Europe/Berlin","duration":%d%s}},"event_ts":%d}`,
		typ, s.random(base62, 22), 80_000_000_000+r.Int64N(9_000_000_000), id, s.random(base62, 22), pick(s, "Weekly", "Release planning", "Interview"),
		in.Now.Add(-30*time.Minute).UTC().Format(time.RFC3339), pick(s, 30, 45, 60), more, in.Now.UnixMilli())
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"application/json; charset=utf-8"},
		"User-Agent":   {"Zoom Marketplace/1.0a"},
		"Clientid":     {s.random(base62, 22)},
	}}
}
