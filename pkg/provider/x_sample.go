package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleX makes an account activity: a post, or a like.
func sampleX(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "tweet_create_events", "tweet_create_events", "favorite_events")
	id, who := s.snowflake(), s.person()
	user := fmt.Sprintf(`{"id":%[1]d,"id_str":"%[1]d","name":"%[2]s %[3]s","screen_name":"%[4]s","followers_count":%[5]d,"verified":false,"protected":false}`,
		100_000_000+r.Int64N(900_000_000), who.first, who.last, s.random("abcdefghijklmnopqrstuvwxyz", 9), r.IntN(9000))
	at := in.Now.UTC().Format("Mon Jan 02 15:04:05 -0700 2006")
	object := fmt.Sprintf(`{"created_at":"%s","id":%s,"id_str":"%[2]s","text":"%[3]s","source":"web","truncated":false,"user":%[4]s,"lang":"en","timestamp_ms":"%[5]d"}`,
		at, id, pick(s, "Shipping today", "Order "+s.order().id+" arrived ✨", "Hello"), user, in.Now.UnixMilli())
	if typ == "favorite_events" {
		object = fmt.Sprintf(`{"id":"%s","created_at":"%s","timestamp_ms":%d,"favorited_status":%s,"user":%s}`, s.hex(32), at, in.Now.UnixMilli(), object, user)
	}
	body := fmt.Appendf(nil, `{"for_user_id":"2244994945","%s":[%s]}`, typ, object)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Twitterbot/1.0"}}}
}
