package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleSlack makes an event of the Events API: a message, a mention or a reaction.
func sampleSlack(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "message", "message", "app_mention", "reaction_added")
	id := "Ev0" + s.unique(base36, 18)
	unix := in.Now.Unix()
	ts := fmt.Sprintf("%d.%06d", unix, r.IntN(1e6))
	user, channel := "U"+s.random(base36, 10), "C"+s.random(base36, 10)
	text := pick(s, "The export has finished, 1,204 rows.", "Could somebody look at order "+s.order().id+"?", "Deployed to production ✅", "Lunch at half past twelve?")
	var event string
	if typ == "reaction_added" {
		event = fmt.Sprintf(`{"type":"reaction_added","user":"%s","reaction":"%s","item":{"type":"message","channel":"%s","ts":"%s"},"item_user":"U%s","event_ts":"%[4]s"}`,
			user, pick(s, "eyes", "white_check_mark", "tada"), channel, ts, s.random(base36, 10))
	} else {
		event = fmt.Sprintf(slackMessage, typ, user, channel, ts, text, s.uuid(), s.random(base62, 5), pick(s, "channel", "group"))
	}
	body := fmt.Appendf(nil, slackCallback, "T"+s.random(base36, 10), "A"+s.random(base36, 10), event, id, unix, s.random(base62, 72), s.hex(24))
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Accept":       {"*/*"},
		"Content-Type": {"application/json"},
		"User-Agent":   {"Slackbot 1.0 (+https://api.slack.com/robots)"},
	}}
}

const slackMessage = `{"type":"%s","user":"%s","channel":"%s","ts":"%s","client_msg_id":"%[6]s","text":"%[5]s","team":"T02AAAAAA","blocks":[{"type":"rich_text",` +
	`"block_id":"%[7]s","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"%[5]s"}]}]}],"event_ts":"%[4]s","channel_type":"%[8]s"}`

const slackCallback = `{"token":"%[7]s","team_id":"%[1]s","context_team_id":"%[1]s","context_enterprise_id":null,"api_app_id":"%[2]s","event":%[3]s,` +
	`"type":"event_callback","event_id":"%[4]s","event_time":%[5]d,"authorizations":[{"enterprise_id":null,"team_id":"%[1]s","user_id":"U0LAN0Z89","is_bot":true,` +
	`"is_enterprise_install":false}],"is_ext_shared_channel":false,"event_context":"4-%[6]s",` +
	`"bot_profile":{"id":"B0LAN0Z89","app_id":"%[2]s","name":"release-notes","icons":{"image_36":"https://a.slack-edge.com/80588/img/plugins/app/bot_36.png",` +
	`"image_48":"https://a.slack-edge.com/80588/img/plugins/app/bot_48.png","image_72":"https://a.slack-edge.com/80588/img/plugins/app/service_72.png"},` +
	`"deleted":false,"updated":1700000000,"team_id":"%[1]s"}}`
