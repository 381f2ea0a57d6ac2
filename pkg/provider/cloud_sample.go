package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// isoMillis is how many of these services write a time.
const isoMillis = "2006-01-02T15:04:05.000Z"

func (s sampler) millis() string { return s.in.Now.UTC().Format(isoMillis) }

func (s sampler) ip() string { return fmt.Sprintf("198.51.100.%d", 1+s.r.IntN(254)) }

// sampleOkta makes one to three events of users signing in and of groups.
func sampleOkta(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	first := ""
	var events []string
	for range 1 + r.IntN(3) {
		typ := pick(s, "user.session.start", "user.lifecycle.create", "group.user_membership.add", "user.account.lock")
		if first == "" {
			first = typ
		}
		p := s.person()
		events = append(events, fmt.Sprintf(
			`{"uuid":"%s","published":"%s","eventType":"%s","version":"0","displayMessage":"%s","severity":"INFO","client":{"userAgent":{"os":"Mac OS X","browser":"CHROME"},`+
				`"zone":"null","device":"Computer","ipAddress":"%s","geographicalContext":{"city":"%s","country":"%s"}},"actor":{"id":"00u%s","type":"User","alternateId":"%s","displayName":"%s %s"},`+
				`"outcome":{"result":"SUCCESS"},"target":[{"id":"00u%[8]s","type":"User","alternateId":"%[9]s"}],"transaction":{"type":"WEB","id":"%s"},"legacyEventType":null}`,
			s.uuid(), s.millis(), typ, strings.ReplaceAll(typ, ".", " "), s.ip(), p.city, p.country, s.random(base62, 17), p.mail, p.first, p.last, s.random(base62, 27),
		))
		s.in.Seq += 1 << 40 // another element, another ID
	}
	s.in.Seq = in.Seq
	id := s.uuid()
	body := fmt.Sprintf(
		`{"eventType":"com.okta.event_hook","eventTypeVersion":"1.0","cloudEventsVersion":"0.1","source":"https://example.okta.com/api/v1/eventHooks/who%s","eventId":"%s",`+
			`"data":{"events":[%s]},"eventTime":"%s","contentType":"application/json"}`, s.random(base62, 17), id, strings.Join(events, ","), s.millis(),
	)
	return Sample{ID: id, Type: first, Body: []byte(body), Header: http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"Okta-Integrations"}, "Accept": {"application/json"},
	}}
}

// sampleAuth0 makes records of logins, in each of the three forms.
func sampleAuth0(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	record := func() (text, id, typ string) {
		id, typ = "90020"+s.in.Now.UTC().Format("20060102150405")+s.unique("0123456789", 30), pick(s, "s", "fp", "seccft", "slo")
		p := s.person()
		s.in.Seq += 10_000_000
		return fmt.Sprintf(
			`{"log_id":"%[1]s","data":{"date":"%[2]s","type":"%[3]s","description":"","connection":"Username-Password-Authentication","connection_id":"con_%[4]s","client_id":"%[5]s",`+
				`"client_name":"Storefront","ip":"%[6]s","user_agent":"Mozilla/5.0 (X11; Linux x86_64)","user_id":"auth0|%[7]s","user_name":"%[8]s","log_id":"%[1]s","tenant_name":"example",`+
				`"$event_schema":{"version":"1.0.0"}}}`,
			id, s.millis(), typ, s.random(base62, 16), s.random(base62, 32), s.ip(), s.hex(24), p.mail,
		), id, typ
	}
	text, id, typ := record()
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Auth0-Log-Streams"}}
	switch r.IntN(3) {
	case 1:
		more, _, _ := record()
		text = "[" + text + "," + more + "]"
	case 2:
		more, _, _ := record()
		text += "\n" + more + "\n"
		header.Set("Content-Type", "text/plain")
	}
	return Sample{ID: id, Type: typ, Body: []byte(text), Header: header}
}

// sampleMSGraph makes notifications of messages and calendars. Sign fills in the clientState.
func sampleMSGraph(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	first, id, typ := "", "", ""
	var elements []string
	for range 1 + r.IntN(3) {
		id, typ = s.uuid(), pick(s, "created", "updated", "deleted")
		if first == "" {
			first = id
		}
		resource := "Users/" + s.hex(32) + "/" + pick(s, "Messages", "Events") + "/" + s.random(base62, 60)
		elements = append(elements, fmt.Sprintf(
			`{"id":"%s","subscriptionId":"%s","subscriptionExpirationDateTime":"%s","clientState":"","changeType":"%s","resource":"%s","tenantId":"%s",`+
				`"resourceData":{"@odata.type":"#Microsoft.Graph.Message","@odata.id":"%[5]s","@odata.etag":"W/\"%[7]s\"","id":"%[8]s"}}`,
			id, s.uuid(), in.Now.UTC().AddDate(0, 0, 2).Format(isoMillis), typ, resource, "84bd8158-6d4d-4958-8b9f-9d6445542f95", s.random(base62, 16), s.random(base62, 40),
		))
		s.in.Seq += 1 << 40
	}
	return Sample{ID: first, Type: typ, Body: []byte(`{"value":[` + strings.Join(elements, ",") + `]}`), Header: http.Header{"Content-Type": {"application/json"}}}
}

// sampleCloudEvents makes events in each of the three modes.
func sampleCloudEvents(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	id, source, typ := s.uuid(), "/shops/"+pick(s, "eu", "us"), pick(s, "com.example.order.paid", "com.example.order.shipped")
	data := fmt.Sprintf(`{"order":"%s","amount":%d,"currency":"%s","buyer":{"name":"%s %s","email":"%s"}}`, o.id, o.amount, o.currency, o.buyer.first, o.buyer.last, o.buyer.mail)
	event := fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"%s","type":"%s","time":"%s","datacontenttype":"application/json","data":%s}`, id, source, typ, s.millis(), data)
	sample := Sample{ID: cloudEventID(source, id), Type: typ, Header: http.Header{"Webhook-Request-Origin": {"eventemitter.example.com"}}}
	switch r.IntN(3) {
	case 0:
		sample.Body = []byte(event)
		sample.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	case 1:
		sample.Body = []byte("[" + event + "]")
		sample.Header.Set("Content-Type", "application/cloudevents-batch+json; charset=utf-8")
	case 2:
		sample.Body = []byte(data)
		for name, v := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": source, "Ce-Type": typ, "Ce-Time": s.millis(), "Content-Type": "application/json"} {
			sample.Header.Set(name, v)
		}
	}
	return sample
}
