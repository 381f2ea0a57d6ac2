package collect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// archive dumps the segments of both topics, the rows of the deliveries', and the checkpoints.
func archive(ctx context.Context, o Options) (err error) {
	s, err := openStore(ctx, o)
	if err != nil {
		return err
	}
	rows, err := folder.Create(o.Dir, folder.ArchiveFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	segments, err := folder.Create(o.Dir, folder.SegmentsFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, segments.Close()) }()
	if err := objects(ctx, s, []string{"events/", "results/"}, func(key string, object []byte) error {
		keep := rows
		if !strings.HasPrefix(key, "events/") {
			keep = nil
		}
		one, err := readSegment(key, object, &o, keep)
		if err != nil {
			return err
		}
		return segments.Write(one)
	}); err != nil {
		return err
	}
	return checkpoints(ctx, o, s)
}

// row has the columns of schemas/archive.v1.txt.
type row struct {
	Source         *string             `parquet:"source,optional"`
	Provider       *string             `parquet:"provider,optional"`
	EventID        *string             `parquet:"event_id,optional"`
	Type           *string             `parquet:"type,optional"`
	EventTime      *int64              `parquet:"event_time,optional,timestamp(microsecond)"`
	ReceivedAt     *int64              `parquet:"received_at,optional,timestamp(microsecond)"`
	KafkaTimestamp int64               `parquet:"kafka_timestamp,timestamp(microsecond)"`
	DeliveryID     *string             `parquet:"delivery_id,optional"`
	ContentType    *string             `parquet:"content_type,optional"`
	Headers        map[string][]string `parquet:"headers" parquet-value:",list"`
	Body           []byte              `parquet:"body"`
	BodySHA256     []byte              `parquet:"body_sha256"`
	Method         *string             `parquet:"method,optional"`
	Path           *string             `parquet:"path,optional"`
	Query          *string             `parquet:"query,optional"`
	SignedURL      *string             `parquet:"signed_url,optional"`
	RemoteAddr     *string             `parquet:"remote_addr,optional"`
	SecretID       *string             `parquet:"secret_id,optional"`
	Verdict        *string             `parquet:"verdict,optional"`
	BodyKeyID      *string             `parquet:"body_key_id,optional"`
	Attributes     map[string]string   `parquet:"attributes"`
	Topic          string              `parquet:"topic"`
	TopicID        string              `parquet:"topic_id"`
	Partition      int32               `parquet:"partition"`
	Offset         int64               `parquet:"offset"`
	SchemaVersion  int32               `parquet:"schema_version"`
}

// readSegment reads an object as a segment, and dumps its rows, unless keep is nil. What is wrong with it stands in the
// segment's Error; the error is that of the dump.
func readSegment(key string, object []byte, o *Options, keep *folder.Lines) (folder.Segment, error) {
	sum := sha256.Sum256(object)
	s := folder.Segment{Key: key, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(object))}
	file, err := parquet.OpenFile(bytes.NewReader(object), s.Size)
	if err != nil {
		s.Error = err.Error()
		return s, nil
	}
	if s.Error = footer(file, &s); s.Error != "" {
		return s, nil
	}
	reader := parquet.NewGenericReader[row](file)
	defer func() { _ = reader.Close() }()
	var tree merkle
	batch := make([]row, 512)
	for {
		clear(batch)
		n, err := reader.Read(batch)
		for i := range batch[:n] {
			w := &batch[i]
			tree.add(w.leaf())
			if want := s.First + s.Rows; w.Offset != want && s.Error == "" {
				s.Error = fmt.Sprintf("row %d has offset %d and not %d", s.Rows, w.Offset, want)
			}
			if day := "/date=" + time.UnixMicro(w.KafkaTimestamp).UTC().Format(time.DateOnly) + "/"; !strings.Contains(key, day) && s.Error == "" {
				s.Error = fmt.Sprintf("row %d is of another day than its object: %s", s.Rows, day)
			}
			s.Rows++
			if keep != nil && o.ours(orNone(w.Source)) {
				if err := keep.Write(w.record(key)); err != nil {
					return s, err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.Error = err.Error()
			break
		}
	}
	s.Computed = tree.root()
	return s, nil
}

// footer reads the metadata that docs/archive.md describes, and says what is missing.
func footer(file *parquet.File, s *folder.Segment) string {
	text := func(name string) string {
		v, _ := file.Lookup("catchment." + name)
		return v
	}
	s.Topic, s.TopicID, s.Previous, s.Root = text("topic"), text("topic_id"), text("previous_sha256"), text("merkle_root")
	numbers := map[string]*int64{"first_offset": &s.First, "last_offset": &s.Last, "count": &s.Count}
	for name, to := range numbers {
		var err error
		if *to, err = strconv.ParseInt(text(name), 10, 64); err != nil {
			return fmt.Sprintf("the footer's %s is %q", name, text(name))
		}
	}
	p, err := strconv.ParseInt(text("partition"), 10, 32)
	if err != nil {
		return fmt.Sprintf("the footer's partition is %q", text("partition"))
	}
	s.Partition = int32(p)
	if v := text("schema_version"); v != "1" {
		return fmt.Sprintf("the footer's schema_version is %q", v)
	}
	return ""
}

// record is the row as the judge wants it.
func (w *row) record(segment string) folder.Record {
	sum := sha256.Sum256(w.Body)
	r := folder.Record{
		Source: orNone(w.Source), ID: orNone(w.EventID), TopicID: w.TopicID, Partition: w.Partition, Offset: w.Offset, Delivery: orNone(w.DeliveryID),
		Attempt: attemptOf(w.Headers), SHA256: hex.EncodeToString(sum[:]), Size: len(w.Body), Headers: folder.HeaderDigest(w.Headers), Segment: segment,
	}
	switch {
	case w.BodyKeyID != nil:
		r.Odd = "the row is sealed"
	case !bytes.Equal(sum[:], w.BodySHA256):
		r.Odd = "body_sha256 is not that of the body"
	}
	return r
}

func orNone(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// checkpoints dumps the chains' own objects.
func checkpoints(ctx context.Context, o Options, s store) (err error) {
	out, err := folder.Create(o.Dir, folder.CheckpointsFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return objects(ctx, s, []string{"starts/", "checkpoints/"}, func(key string, object []byte) error {
		c := readCheckpoint(key, object)
		if o.Verifier != "" && c.Kind != "start" { // a start is not signed
			c.Unsigned = unsigned(object, o.Verifier)
		}
		return out.Write(c)
	})
}

// objects reads those whose keys begin with one of the prefixes.
func objects(ctx context.Context, s store, prefixes []string, take func(key string, object []byte) error) error {
	for _, prefix := range prefixes {
		for key, err := range s.list(ctx, prefix) {
			if err != nil {
				return err
			}
			object, err := s.read(ctx, key)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			if err := take(key, object); err != nil {
				return err
			}
		}
	}
	return nil
}

var chainName = regexp.MustCompile(`^(.+)-([0-9a-f]{32})-(\d{5})$`)

// readCheckpoint takes the text apart. A signature is behind an empty line.
func readCheckpoint(key string, object []byte) folder.Checkpoint {
	sum := sha256.Sum256(object)
	c := folder.Checkpoint{Key: key, Own: hex.EncodeToString(sum[:])}
	text, signature, _ := strings.Cut(string(object), "\n\n")
	c.Signature = strings.TrimSpace(signature)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	kinds := map[string]string{"catchment archive checkpoint v1": "checkpoint", "catchment archive gap v1": "gap", "catchment archive start v1": "start"}
	if c.Kind = kinds[lines[0]]; c.Kind == "" {
		c.Error = fmt.Sprintf("its first line is %q", lines[0])
		return c
	}
	fields := map[string]string{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, " ")
		fields[name] = value
	}
	c.Segment, c.SHA256, c.Root, c.Previous = fields["segment"], fields["sha256"], fields["root"], fields["previous"]
	chain := chainName.FindStringSubmatch(fields["partition"])
	if chain == nil {
		c.Error = fmt.Sprintf("its partition is %q", fields["partition"])
		return c
	}
	c.Topic, c.TopicID = chain[1], chain[2]
	number := func(name, text string, bits int) int64 {
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil && c.Error == "" {
			c.Error = fmt.Sprintf("its %s is %q", name, text)
		}
		return n
	}
	c.Partition, c.First = int32(number("partition", chain[3], 32)), number("first", fields["first"], 64)
	if c.Kind != "start" {
		c.Last = number("last", fields["last"], 64)
	}
	if c.Kind == "checkpoint" {
		c.Size = number("size", fields["size"], 64)
	}
	return c
}
