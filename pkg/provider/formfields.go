package provider

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
)

// maxField is the length of the longest field that formFields and multipartFields read.
const maxField = 512

// formFields takes a few fields out of a form, without a copy of the others; "" stands for one that is missing. A
// field that is there twice, or too long, is refused.
func formFields(body []byte, names ...string) ([]string, bool) {
	out, seen := make([]string, len(names)), make([]bool, len(names))
	for pair := range bytes.SplitSeq(body, []byte("&")) {
		name, value, _ := bytes.Cut(pair, []byte("="))
		if len(name) > maxField {
			continue
		}
		text, err := url.QueryUnescape(string(name))
		if err != nil {
			continue
		}
		i := slices.Index(names, text)
		if i < 0 {
			continue
		}
		if seen[i] || len(value) > 3*maxField {
			return nil, false
		}
		if out[i], err = url.QueryUnescape(string(value)); err != nil || len(out[i]) > maxField {
			return nil, false
		}
		seen[i] = true
	}
	return out, true
}

// multipartFields does the same with a multipart form. Files have no say, whatever their fields are called.
func multipartFields(contentType string, body []byte, names ...string) ([]string, bool) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["boundary"] == "" {
		return nil, false
	}
	out, seen := make([]string, len(names)), make([]bool, len(names))
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out, bytes.Contains(body, []byte("--"+params["boundary"]+"--")) // else it is cut
		}
		if err != nil {
			return nil, false
		}
		i := slices.Index(names, part.FormName())
		if i < 0 || part.FileName() != "" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(part, maxField+1))
		if err != nil || seen[i] || len(text) > maxField {
			return nil, false
		}
		out[i], seen[i] = string(text), true
	}
}
