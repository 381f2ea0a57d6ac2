package ingress

import (
	"bytes"
	"math"
)

// framing follows the requests of one HTTP/1 connection byte by byte, to find what net/http takes and others
// understand in another way: header lines that are folded, a body with both Content-Length and Transfer-Encoding, and
// either of them twice. Behind a proxy that reads those differently, one request's body could pass as another request.
// It spoils the byte at which it sees one, so that net/http refuses the request with 400 in its place and closes the
// connection. All else stays as it is. Where net/http refuses a request by itself, it does not matter what comes after.
type framing struct {
	state  frameState
	left   int64 // bytes of the body, or of the chunk, that are still to come
	length int64 // Content-Length
	blank  bool  // nothing of the request line has come yet
	last   byte  // the last byte of the request line so far
	old    bool  // HTTP/1.0
	sized  bool  // there is a Content-Length
	chunks bool  // there is a Transfer-Encoding
	field  frameField
	name   [len("transfer-encoding")]byte // in lower case
	named  int                            // its length; more than fits: another header
}

type (
	frameState byte
	frameField byte
)

const (
	inRequestLine frameState = iota
	atLine
	atLineCR
	inName
	inValue
	inBody
	inChunkSize
	inChunkExtension
	inChunk
	atTrailer
	inTrailer
)

const (
	fieldOther frameField = iota
	fieldLength
	fieldEncoding
)

const spoilt = 0 // no header name or value may hold it

func newFraming() *framing { return &framing{blank: true} }

// pass looks at the next bytes of the connection, and spoils some.
func (f *framing) pass(p []byte) {
	for len(p) > 0 {
		switch f.state {
		case inRequestLine:
			p = f.requestLine(p)
		case atLine, atLineCR:
			p = f.line(p)
		case inName:
			p = f.headerName(p)
		case inValue:
			p = f.value(p)
		case inBody, inChunk:
			n := min(f.left, int64(len(p)))
			p = p[n:]
			if f.left -= n; f.left == 0 {
				f.bodyOrChunkEnds()
			}
		default:
			p = f.chunked(p)
		}
	}
}

// upToLF returns what stands before the next LF and what comes after it; ended is false when there is none.
func upToLF(p []byte) (line, rest []byte, ended bool) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return p, nil, false
	}
	return p[:i], p[i+1:], true
}

func (f *framing) requestLine(p []byte) []byte {
	line, rest, ended := upToLF(p)
	if t := bytes.TrimRight(line, "\r"); len(t) > 0 {
		f.last, f.blank = t[len(t)-1], false
	}
	if ended && !f.blank { // blank lines may stand before a request
		f.old, f.state = f.last == '0', atLine
	}
	return rest
}

func (f *framing) line(p []byte) []byte {
	c := p[0]
	switch {
	case c == '\n':
		f.headEnds()
	case f.state == atLineCR:
		f.state, f.field = inValue, fieldOther
		return p
	case c == '\r':
		f.state = atLineCR
	case c == ' ' || c == '\t': // a folded line
		p[0] = spoilt
		f.state, f.field = inValue, fieldOther
	case c|0x20 != 'c' && c|0x20 != 't': // neither of the two
		f.state, f.field = inValue, fieldOther
		return p
	default:
		f.state, f.named = inName, 0
		return p
	}
	return p[1:]
}

func (f *framing) headerName(p []byte) []byte {
	for i, c := range p {
		switch {
		case c == '\n':
			f.state = atLine
			return p[i+1:]
		case c == ':':
			if f.headerNamed() {
				p[i] = spoilt
			}
			f.state = inValue
			return p[i+1:]
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		if f.named < len(f.name) {
			f.name[f.named] = c
		}
		f.named++
	}
	return nil
}

// headerNamed says whether the header must not be there.
func (f *framing) headerNamed() bool {
	f.field = fieldOther
	switch {
	case f.named == len("content-length") && string(f.name[:f.named]) == "content-length":
		wrong := f.sized || f.chunks
		f.field, f.sized, f.length = fieldLength, true, 0
		return wrong
	case f.named == len(f.name) && string(f.name[:]) == "transfer-encoding":
		wrong := f.sized || f.chunks || f.old // HTTP/1.0 does not know it: net/http would take no notice
		f.field, f.chunks = fieldEncoding, true
		return wrong
	}
	return false
}

func (f *framing) value(p []byte) []byte {
	line, rest, ended := upToLF(p)
	if f.field == fieldLength {
		for _, c := range line {
			if c >= '0' && c <= '9' && f.length < math.MaxInt64/10-1 {
				f.length = f.length*10 + int64(c-'0')
			}
		}
	}
	if ended {
		f.state = atLine
	}
	return rest
}

func (f *framing) headEnds() {
	switch {
	case f.chunks:
		f.left, f.state = 0, inChunkSize
	case f.length > 0:
		f.left, f.state = f.length, inBody
	default:
		f.requestEnds()
	}
}

func (f *framing) bodyOrChunkEnds() {
	if f.state == inChunk {
		f.state = inChunkSize
		return
	}
	f.requestEnds()
}

func (f *framing) requestEnds() { *f = framing{blank: true} }

func (f *framing) chunked(p []byte) []byte {
	switch f.state {
	case inChunkSize:
		for i, c := range p {
			d, ok := hexDigit(c)
			if !ok {
				f.state = inChunkExtension
				return p[i:]
			}
			if f.left < math.MaxInt64/16-16 {
				f.left = f.left*16 + d
			}
		}
		return nil
	case inChunkExtension:
		_, rest, ended := upToLF(p)
		switch {
		case ended && f.left == 0:
			f.state = atTrailer
		case ended:
			f.left, f.state = f.left+2, inChunk // CR and LF after the data
		}
		return rest
	case atTrailer:
		switch p[0] {
		case '\n':
			f.requestEnds()
		case '\r':
		default:
			f.state = inTrailer
			return p
		}
		return p[1:]
	}
	_, rest, ended := upToLF(p)
	if ended {
		f.state = atTrailer
	}
	return rest
}

func hexDigit(c byte) (int64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return int64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}
