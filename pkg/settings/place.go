package settings

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/catchment-dev/catchment/pkg/config"
)

// Place is where objects are kept: a folder, or a bucket of an S3-compatible server.
type Place struct {
	Folder   string // absolute; empty: a bucket
	Bucket   string
	Prefix   string // of the keys in the bucket, without slashes around it
	Region   string // empty: as the environment or a profile says
	Endpoint string // URL of the server; empty: AWS
	// PathStyle says that the bucket is part of the URL's path and not of its host.
	PathStyle bool
}

// absPlace turns file:folder, which starts at the file's folder, into file:///folder. Any other text is given back.
func (f *File) absPlace(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "file" || u.Opaque == "" || u.RawQuery != "" || strings.Contains(text, "#") {
		return text
	}
	folder, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return text
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(f.Abs(folder))}).String()
}

// ParsePlace reads file:///folder or s3://bucket/prefix?region=…&endpoint=…&path_style=true. The error does not show the URL.
func ParsePlace(text string) (Place, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Place{}, errors.New("the URL cannot be parsed")
	}
	if strings.Contains(text, "#") {
		return Place{}, errors.New("expected no #, behind which nothing belongs to the place: in a name it is written %23")
	}
	switch u.Scheme {
	case "file":
		return parseFolder(u)
	case "s3":
		return parseBucket(u)
	}
	return Place{}, fmt.Errorf("expected file:// or s3://, found %q", u.Scheme)
}

func parseFolder(u *url.URL) (Place, error) {
	if u.Host != "" && u.Host != "localhost" {
		return Place{}, fmt.Errorf("expected file:///absolute/folder, or file:folder beside the configuration, found host %q", u.Host)
	}
	if !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Opaque != "" {
		return Place{}, errors.New("expected file:///absolute/folder, or file:folder beside the configuration")
	}
	return Place{Folder: filepath.Clean(u.Path)}, nil
}

// parseBucket reads an s3:// URL. With an endpoint of its own, a bucket is part of the path unless said otherwise.
func parseBucket(u *url.URL) (Place, error) {
	if u.Host == "" || u.User != nil || u.Port() != "" {
		return Place{}, errors.New("expected s3://bucket/prefix; keys come from the environment, a profile or the machine's role")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Place{}, errors.New("expected parameters such as ?region=eu-central-1&endpoint=https%3A%2F%2Fhost")
	}
	p := Place{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: q.Get("region"), Endpoint: strings.TrimRight(q.Get("endpoint"), "/")}
	for name, values := range q {
		if !slices.Contains([]string{"region", "endpoint", "path_style"}, name) {
			return Place{}, fmt.Errorf("unknown parameter %q: region, endpoint and path_style are known", name)
		}
		if len(values) > 1 {
			return Place{}, fmt.Errorf("parameter %q stands there %d times", name, len(values))
		}
	}
	if e, err := url.Parse(p.Endpoint); q.Has("endpoint") && (err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "") {
		return Place{}, fmt.Errorf("endpoint: expected http://host:port or https://host:port, found %q", p.Endpoint)
	}
	p.PathStyle = p.Endpoint != ""
	if q.Has("path_style") {
		if p.PathStyle, err = strconv.ParseBool(q.Get("path_style")); err != nil {
			return Place{}, fmt.Errorf("path_style: expected true or false, found %q", q.Get("path_style"))
		}
	}
	return p, nil
}

// path is where in the bucket or file system the objects lie.
func (p Place) path() string { return p.Folder + p.Prefix }

// checkArchive looks at the archive's places and at the key of its checkpoints.
func (f *File) checkArchive(need []Section) (errs config.Errors) {
	if !slices.Contains(need, NeedArchive) {
		return nil
	}
	a := f.Archive
	for _, place := range []struct{ path, url string }{{"archive.url", a.URL}, {"archive.checkpoint_copy", a.CheckpointCopy}} {
		if _, err := ParsePlace(place.url); err != nil && place.url != "" {
			errs = append(errs, f.Errorf(place.path, "%v", err))
		}
	}
	if a.CheckpointCopy != "" && samePlace(a.CheckpointCopy, a.URL) {
		errs = append(errs, f.Errorf("archive.checkpoint_copy", "expected another place than archive.url"))
	}
	if err := checkSigner(a.CheckpointKey.Reveal()); err != nil {
		errs = append(errs, f.Errorf("archive.checkpoint_key", "%v", err))
	}
	return errs
}

// samePlace says whether two URLs name one place, however they are written.
func samePlace(a, b string) bool {
	p, err := ParsePlace(a)
	q, err2 := ParsePlace(b)
	if err != nil || err2 != nil {
		return a == b
	}
	return p.Bucket == q.Bucket && strings.EqualFold(p.Endpoint, q.Endpoint) && p.path() == q.path()
}

// ed25519Type is what a C2SP key begins with.
const ed25519Type = 1

// checkSigner says what is wrong with a C2SP signer key, PRIVATE+KEY+name+hash+key. An empty text is none.
func checkSigner(text string) error {
	const expected = "expected PRIVATE+KEY+name+hash+key, the form of a C2SP signer key"
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	parts := strings.SplitN(text, "+", 5) // the key may hold a plus of its own
	if len(parts) != 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return errors.New(expected)
	}
	name, hash := parts[2], parts[3]
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsSpace) {
		return errors.New(expected + "; its name is empty or has a space")
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != ed25519Type {
		return errors.New(expected + ", of an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey) //nolint:forcetypeassert // says the package
	sum := sha256.Sum256(append([]byte(name+"\n"+string(rune(ed25519Type))), public...))
	if want := fmt.Sprintf("%08x", binary.BigEndian.Uint32(sum[:])); !strings.EqualFold(hash, want) {
		return errors.New(expected + "; its hash is not that of this name and key: a key that gets another name is made anew")
	}
	return nil
}
