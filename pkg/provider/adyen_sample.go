package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// sampleAdyen makes a payments webhook: an authorisation, a capture or a refund, alone as Adyen sends them by
// default, now and then two in one delivery.
func sampleAdyen(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	code, success, reason := pick(s, "AUTHORISATION", "CAPTURE", "REFUND"), "true", `"041823:1111:03/2030"`
	if o.early {
		code = "AUTHORISATION"
	}
	if r.IntN(5) == 0 {
		success, reason = "false", `"REFUSED"`
	}
	reference := s.unique(base36, 16)
	items := []string{adyenSampleItem(s, o, reference, code, success, reason)}
	if in.Seq%5 == 4 {
		items = append(items, adyenSampleItem(s, o, s.unique(base36, 15)+"X", "REPORT_AVAILABLE", "true", `"https://ca-test.adyen.com/reports/download/MerchantAccount/CatchmentECOM/report.csv"`))
	}
	return Sample{
		ID: reference + ":" + code + ":" + success, Type: code,
		Body:   []byte(`{"live":"false","notificationItems":[` + strings.Join(items, ",") + `]}`),
		Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}, "User-Agent": {"Adyen HttpClient 1.0"}},
	}
}

func adyenSampleItem(s sampler, o order, reference, code, success, reason string) string {
	original := ""
	if code != "AUTHORISATION" {
		original = `"originalReference":"` + s.random(base36, 16) + `",`
	}
	return fmt.Sprintf(`{"NotificationRequestItem":{"additionalData":{"cardSummary":"1111","expiryDate":"03\/2030","authCode":"041823","cardHolderName":"%s %s",`+
		`"shopperCountry":"%s","hmacSignature":"to be signed"},"amount":{"currency":"%s","value":%d},"eventCode":"%s","eventDate":"%s","merchantAccountCode":"CatchmentECOM",`+
		`"merchantReference":"%s","operations":["CANCEL","CAPTURE","REFUND"],%s"paymentMethod":"visa","pspReference":"%s","reason":%s,"success":"%s"}}`,
		o.buyer.first, o.buyer.last, o.buyer.country, strings.ToUpper(o.currency), o.amount, code, s.in.Now.UTC().Format(time.RFC3339), o.id, original, reference, reason, success)
}
