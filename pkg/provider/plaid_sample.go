package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// samplePlaid makes news of transactions, of an item or of a transfer.
func samplePlaid(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "TRANSACTIONS", "TRANSACTIONS", "ITEM", "HOLDINGS")
	more := `"webhook_code":"SYNC_UPDATES_AVAILABLE","initial_update_complete":true,"historical_update_complete":true`
	switch typ {
	case "ITEM":
		more = `"webhook_code":"PENDING_DISCONNECT","reason":"INSTITUTION_MIGRATION"`
	case "HOLDINGS":
		more = fmt.Sprintf(`"webhook_code":"DEFAULT_UPDATE","new_holdings":%d,"updated_holdings":%d,"error":null`, r.IntN(20), r.IntN(5))
	}
	id := s.unique(base62, 37)
	return Sample{
		ID: id, Type: typ, Body: fmt.Appendf(nil, `{"webhook_type":"%s",%s,"item_id":"%s","environment":"sandbox"}`, typ, more, id),
		Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"plaid-webhooks"}},
	}
}
