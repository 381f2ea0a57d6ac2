package collect

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"math"
	"slices"
)

// leaf is the row as docs/archive.md hashes it: each column's length and bytes, in schema order.
func (w *row) leaf() []byte {
	var l leaf
	l.text(w.Source)
	l.text(w.Provider)
	l.text(w.EventID)
	l.text(w.Type)
	l.time(w.EventTime)
	l.time(w.ReceivedAt)
	l.number(w.KafkaTimestamp)
	l.text(w.DeliveryID)
	l.text(w.ContentType)
	var headers leaf
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		headers.bytes([]byte(name))
		headers.number(int64(len(w.Headers[name])))
		for _, v := range w.Headers[name] {
			headers.bytes([]byte(v))
		}
	}
	l.bytes(headers)
	l.bytes(w.Body)
	l.bytes(w.BodySHA256)
	for _, text := range []*string{w.Method, w.Path, w.Query, w.SignedURL, w.RemoteAddr, w.SecretID, w.Verdict, w.BodyKeyID} {
		l.text(text)
	}
	var attributes leaf
	for _, name := range slices.Sorted(maps.Keys(w.Attributes)) {
		attributes.bytes([]byte(name))
		attributes.number(1)
		attributes.bytes([]byte(w.Attributes[name]))
	}
	l.bytes(attributes)
	l.bytes([]byte(w.Topic))
	l.bytes([]byte(w.TopicID))
	l.number(int64(w.Partition))
	l.number(w.Offset)
	l.number(int64(w.SchemaVersion))
	return l
}

type leaf []byte

func (l *leaf) length(n uint64) { *l = binary.BigEndian.AppendUint64(*l, n) }

func (l *leaf) bytes(b []byte) {
	l.length(uint64(len(b)))
	*l = append(*l, b...)
}

func (l *leaf) null() { l.length(math.MaxUint64) }

func (l *leaf) text(s *string) {
	if s == nil {
		l.null()
		return
	}
	l.bytes([]byte(*s))
}

func (l *leaf) number(n int64) {
	l.length(8)
	l.length(uint64(n))
}

func (l *leaf) time(t *int64) {
	if t == nil {
		l.null()
		return
	}
	l.number(*t)
}

// merkle computes an RFC 6962 root from the definition: the hashes of all leaves are kept, and split at the largest power of two.
type merkle [][sha256.Size]byte

func (m *merkle) add(leaf []byte) {
	*m = append(*m, sha256.Sum256(append([]byte{0}, leaf...)))
}

func (m merkle) root() string {
	sum := m.hash()
	return hex.EncodeToString(sum[:])
}

func (m merkle) hash() [sha256.Size]byte {
	switch len(m) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return m[0]
	}
	k := 1
	for 2*k < len(m) {
		k *= 2
	}
	left, right := m[:k].hash(), m[k:].hash()
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}
