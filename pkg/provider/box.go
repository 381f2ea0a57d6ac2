package provider

import (
	"fmt"
	"math/rand/v2"
	"time"
)

var box = &Provider{
	Name:            "box",
	SecurityHeaders: []string{"Box-Signature-Primary", "Box-Signature-Secondary", "Box-Delivery-Timestamp"},
	credentials:     secretOnly(newHexSecret),
	open:            boxRules.open,
	sign:            boxRules.sign,
	sample:          sampleBox,
	Doc: Doc{
		Title:     "Box, version 2",
		URL:       "https://developer.box.com/guides/webhooks/v2/signatures-v2/",
		Signature: "`BOX-SIGNATURE-PRIMARY` and `BOX-SIGNATURE-SECONDARY: <base64>`, of which one must fit one of the secrets; `BOX-DELIVERY-TIMESTAMP` (RFC 3339)",
		Signed:    "body, `BOX-DELIVERY-TIMESTAMP` as it was sent; HMAC-SHA256; the key is the text of the primary or the secondary key",
		Tolerance: "10 minutes, both ways",
		ID:        "body `id`, the same for every retry (`BOX-DELIVERY-ID` is another for each)",
		Type:      "body `trigger`, such as `FILE.UPLOADED`",
		Time:      "body `created_at`, RFC 3339",
		Retries:   "up to 10",
		Notes: []string{
			"Configure both keys as secrets; Box lets you replace one at a time.",
			"`BOX-SIGNATURE-VERSION` and `-ALGORITHM` must say `1` and `HmacSHA256` where they are there.",
		},
		Config: "provider: box\nsecrets: [\"${BOX_PRIMARY_KEY}\", \"${BOX_SECONDARY_KEY}\"]",
	},
}

var boxRules = &declared{
	HMAC: HMAC{
		Header: "BOX-SIGNATURE-PRIMARY", Encoding: "base64", Signed: "{body}{timestamp}", TimestampHeader: "BOX-DELIVERY-TIMESTAMP", Tolerance: 10 * time.Minute,
	},
	also:      []string{"Box-Signature-Secondary"},
	require:   map[string]string{"Box-Signature-Version": "1", "Box-Signature-Algorithm": "HmacSHA256"},
	readStamp: rfc3339, writeStamp: func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	id: "id", typ: "trigger", at: "created_at",
}

func sampleBox(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "FILE.UPLOADED", "FILE.PREVIEWED", "FOLDER.RENAMED", "COMMENT.CREATED")
	body := fmt.Appendf(nil, `{"type":"webhook_event","id":"%s","created_at":"%s","trigger":"%s","webhook":{"id":"%d","type":"webhook"},"created_by":{"type":"user","id":"%d","name":"%s","login":"%s"},`+
		`"source":{"id":"%d","type":"file","sha1":"%s","name":"%s","size":%d,"created_at":"%[2]s","parent":{"type":"folder","id":"0","name":"All Files"},"item_status":"active"},"additional_info":[]}`,
		id, in.Now.UTC().Format(time.RFC3339), typ, 4_000_000+r.IntN(900_000), 20_000_000+r.IntN(900_000), who.first+" "+who.last, who.mail, 73_835_521_473+int64(in.Seq), s.hex(40),
		pick(s, "invoice-2026-11.pdf", "Größen.xlsx", "photo.jpg"), 100+r.IntN(1_000_000))
	return jsonSample(id, typ, "Box-WH-Client", body, "BOX-DELIVERY-ID", s.uuid(), "BOX-SIGNATURE-VERSION", "1", "BOX-SIGNATURE-ALGORITHM", "HmacSHA256")
}
