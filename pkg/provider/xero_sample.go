package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// sampleXero makes up to three events of invoices and contacts. All of a delivery are of one type, for a sample has
// one.
func sampleXero(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ, tenant := pick(s, "CREATE", "UPDATE", "UPDATE"), s.uuid()
	events := make([]string, 1+r.IntN(3))
	for i := range events {
		kind, resource := pick(s, "INVOICE", "CONTACT"), s.uuid()
		path := strings.ToUpper(kind[:1]) + strings.ToLower(kind[1:]) + "s"
		events[i] = fmt.Sprintf(`{"resourceUrl":"https://api.xero.com/api.xro/2.0/%s/%s","resourceId":"%[2]s","tenantId":"%s","tenantType":"ORGANISATION","eventCategory":"%s","eventType":"%s","eventDateUtc":"%s"}`,
			path, resource, tenant, kind, typ, in.Now.UTC().Format("2006-01-02T15:04:05.000"))
	}
	first, entropy := in.Seq*3+1, s.unique(base36, 20)
	body := fmt.Appendf(nil, `{"events":[%s],"firstEventSequence":%d,"lastEventSequence":%d,"entropy":"%s"}`, strings.Join(events, ","), first, first+len(events)-1, entropy)
	return Sample{ID: entropy, Type: typ, Body: body, Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Xero-Webhooks"}}}
}
