package folder

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strings"
)

// AttemptHeader is the request header by which each attempt of the workload names itself.
const AttemptHeader = "Prove-Attempt"

// onTheWay are headers that the HTTP client and proxies add, in lower case.
var onTheWay = []string{
	"host", "content-length", "connection", "accept-encoding", "transfer-encoding", "te", "via", "forwarded",
	"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "traceparent", "tracestate",
}

// HeaderDigest is the hex SHA-256 of a request's headers, without what is added on the way: names in lower case, sorted, each
// with its values in order.
func HeaderDigest(headers map[string][]string) string {
	names := make([]string, 0, len(headers))
	lower := make(map[string][]string, len(headers))
	for name, values := range headers {
		n := strings.ToLower(name)
		if !slices.Contains(onTheWay, n) {
			names = append(names, n)
			lower[n] = values
		}
	}
	slices.Sort(names)
	h := sha256.New()
	for _, n := range names {
		for _, v := range lower[n] {
			_, _ = io.WriteString(h, n+"\x00"+v+"\x00")
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
