package segment

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	parquetzstd "github.com/parquet-go/parquet-go/compress/zstd"
)

// window is how far back an encoder looks, in bytes, of which it keeps twice as much: more than a page of usual rows. The
// default, 4 MiB, makes no page smaller but those of larger bodies.
const window = 1 << 20

// codec compresses at the fastest level: on deliveries it takes two thirds of the default level's CPU, for files that are 1 %
// larger. All builders share its encoders, one a core. Parquet's own codec leaves its encoders to the garbage
// collector, and each new one brings megabytes.
type codec struct {
	parquetzstd.Codec // decodes
	encoder           func() (*zstd.Encoder, error)
}

var compression = codec{encoder: sync.OnceValues(func() (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(window), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
	if err == nil {
		e.EncodeAll(nil, nil) // it makes its encoders with the first thing that it encodes
	}
	return e, err
})}

// Prepare makes the encoders, so that no segment has to wait for them.
func Prepare() error {
	_, err := compression.encoder()
	return err
}

// Encode writes to dst, from its beginning.
func (c *codec) Encode(dst, src []byte) ([]byte, error) {
	e, err := c.encoder()
	if err != nil {
		return dst, err
	}
	return e.EncodeAll(src, dst[:0]), nil
}
