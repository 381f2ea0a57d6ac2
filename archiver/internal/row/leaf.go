package row

import (
	"encoding/binary"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// isNull stands for the length of a NULL.
const isNull = math.MaxUint64

// WriteLeaf writes the row's Merkle leaf to a hash: its columns in schema order, each as a length (8 bytes, big endian)
// and that many bytes; NULL is the length 2^64-1 and no bytes. Numbers are 8 bytes, big endian, timestamps in
// microseconds. A map is, per entry and sorted by name, the name, the number of its values and each value, every
// one of them with its length in front; an attribute has one value. All but the body is put together in scratch, whose
// memory it returns for the next leaf.
func (w *Row) WriteLeaf(to io.Writer, scratch []byte) []byte {
	scratch = w.appendBeforeBody(scratch[:0])
	_, _ = to.Write(scratch) // a hash takes everything
	_, _ = to.Write(w.Body)
	scratch = w.appendBehindBody(scratch[:0])
	_, _ = to.Write(scratch)
	return scratch
}

// appendBeforeBody appends what is before the body, and the body's length.
func (w *Row) appendBeforeBody(dst []byte) []byte {
	dst = leafTexts(dst, w.Source, w.Provider, w.EventID, w.Type)
	dst = leafTime(dst, w.EventTime)
	dst = leafTime(dst, w.ReceivedAt)
	dst = leafNumber(dst, w.KafkaTimestamp.UnixMicro())
	dst = leafTexts(dst, w.DeliveryID, w.ContentType)
	dst = leafMap(dst, func(m []byte) []byte {
		byName := func(a, b Header) int { return strings.Compare(a.Name, b.Name) }
		headers := w.Headers
		if !slices.IsSortedFunc(headers, byName) {
			headers = slices.Clone(headers)
			slices.SortFunc(headers, byName)
		}
		for _, h := range headers {
			m = leafNumber(leafBytes(m, h.Name), int64(len(h.Values)))
			for _, v := range h.Values {
				m = leafBytes(m, v)
			}
		}
		return m
	})
	return binary.BigEndian.AppendUint64(dst, uint64(len(w.Body)))
}

func (w *Row) appendBehindBody(dst []byte) []byte {
	dst = leafBytes(dst, w.BodySHA256[:])
	dst = leafTexts(dst, w.Method, w.Path, w.Query, w.SignedURL, w.RemoteAddr, w.SecretID, w.Verdict, w.BodyKeyID)
	dst = leafMap(dst, func(m []byte) []byte {
		for _, a := range w.Attributes {
			m = leafBytes(leafNumber(leafBytes(m, a.Name), 1), a.Value)
		}
		return m
	})
	dst = leafBytes(dst, w.Topic)
	dst = leafBytes(dst, w.topicHex())
	dst = leafNumber(dst, int64(w.Partition))
	dst = leafNumber(dst, w.Offset)
	return leafNumber(dst, int64(w.SchemaVersion))
}

func leafBytes[T string | []byte](dst []byte, v T) []byte {
	return append(binary.BigEndian.AppendUint64(dst, uint64(len(v))), v...)
}

func leafTexts(dst []byte, texts ...string) []byte {
	for _, t := range texts {
		if t == "" {
			dst = binary.BigEndian.AppendUint64(dst, isNull)
			continue
		}
		dst = leafBytes(dst, t)
	}
	return dst
}

func leafNumber(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, 8), uint64(n))
}

func leafTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(dst, isNull)
	}
	return leafNumber(dst, t.UnixMicro())
}

// leafMap writes what fill appends, with its length in front.
func leafMap(dst []byte, fill func([]byte) []byte) []byte {
	at := len(dst)
	dst = fill(binary.BigEndian.AppendUint64(dst, 0))
	binary.BigEndian.PutUint64(dst[at:], uint64(len(dst)-at-8))
	return dst
}
