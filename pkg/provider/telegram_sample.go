package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// sampleTelegram makes an update: a message, an edited one, or a button that was pressed.
func sampleTelegram(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "message", "message", "edited_message", "callback_query")
	id, who := strconv.Itoa(870_000_000+in.Seq), s.person()
	user := fmt.Sprintf(`{"id":%d,"is_bot":false,"first_name":"%s","last_name":"%s","username":"%s","language_code":"en"}`,
		100_000_000+r.IntN(900_000_000), who.first, who.last, s.random("abcdefghijklmnopqrstuvwxyz", 9))
	message := fmt.Sprintf(`{"message_id":%d,"from":%s,"chat":{"id":%d,"first_name":"%s","type":"private"},"date":%d,"text":"%s"`,
		1000+r.IntN(90000), user, 100_000_000+r.IntN(900_000_000), who.first, in.Now.Unix()-3, pick(s, "/start", "Where is "+s.order().id+"?", "Danke ✅"))
	var member string
	switch typ {
	case "message":
		member = message + "}"
	case "edited_message":
		member = fmt.Sprintf(`%s,"edit_date":%d}`, message, in.Now.Unix())
	case "callback_query":
		member = fmt.Sprintf(`{"id":"%d","from":%s,"message":%s},"chat_instance":"-%d","data":"confirm"}`, r.Int64N(1e18), user, message, r.Int64N(1e18))
	}
	body := fmt.Appendf(nil, `{"update_id":%s,"%s":%s}`, id, typ, member)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{"Content-Type": {"application/json"}, "Accept-Encoding": {"gzip, deflate"}}}
}
