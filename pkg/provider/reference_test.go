package provider_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

var update = flag.Bool("update", false, "write docs/providers.md")

// TestReference keeps docs/providers.md true: what testdata/providers.head.md says of all presets, and what each
// preset's Doc says of itself.
func TestReference(t *testing.T) {
	const file = "../../docs/providers.md"
	head, err := os.ReadFile("testdata/providers.head.md")
	require.NoError(t, err)
	want := string(head) + table() + sections()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, want == string(got), "docs/providers.md is not what the presets say: go test ./pkg/provider -run TestReference -update")
}

func table() string {
	var b strings.Builder
	b.WriteString("| preset | scheme | what is signed | event ID | retries | handshake | authenticity |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, p := range provider.All {
		d := &p.Doc
		cells := []string{fmt.Sprintf("[`%s`](#%s)", p.Name, p.Name), d.Signature, d.Signed, d.ID, d.Retries, d.Handshake, authenticity(p)}
		for i, c := range cells {
			if c == "" {
				c = "–"
			}
			cells[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}

func authenticity(p *provider.Provider) string {
	if p.Authenticity == provider.AuthSigned {
		return "signed"
	}
	return string(p.Authenticity)
}

func sections() string {
	var b strings.Builder
	for _, p := range provider.All {
		section(&b, p)
	}
	return b.String()
}

// section is what there is to say of one preset: its Doc, and what its row of the table of presets says.
func section(b *strings.Builder, p *provider.Provider) {
	d := &p.Doc
	fmt.Fprintf(b, "\n### %s\n\n%s: <%s>\n\n", p.Name, d.Title, d.URL)
	wait := p.AckTimeout
	if wait == 0 {
		wait = 4 * time.Second
	}
	for _, one := range []struct{ name, text string }{
		{"Signature", d.Signature},
		{"Signed", d.Signed},
		{"Tolerance", d.Tolerance},
		{"ID", d.ID},
		{"Type", d.Type},
		{"Time", d.Time},
		{"Several events", d.Batch},
		{"Handshake", d.Handshake},
		{"Retries", d.Retries},
		{"Methods", strings.ReplaceAll(p.Allow(), ", ", " ")},
		{"Waits for Kafka", wait.String()},
		{"Options", code(p.Options())},
		{"`catchment send --secret`", d.Signer},
		{"Stored redacted", code(p.SecretHeaders)},
		{"Changes between retries", code(p.Volatile)},
	} {
		if one.text != "" {
			fmt.Fprintf(b, "- %s: %s\n", one.name, one.text)
		}
	}
	for _, note := range d.Notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
	if len(d.Unverified) > 0 {
		b.WriteString("\nNot confirmed by an official page or code:\n\n")
		for _, fact := range d.Unverified {
			fmt.Fprintf(b, "- %s\n", fact)
		}
	}
	fmt.Fprintf(b, "\n```yaml\n%s```\n", example(p))
}

func code(names []string) string {
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, "`"+name+"`")
	}
	return strings.Join(quoted, " ")
}

// example is a catchment.yaml with one source, which has the preset's name.
func example(p *provider.Provider) string {
	lines := strings.Split(strings.TrimRight(p.Doc.Config, "\n"), "\n")
	return "sources:\n  " + p.Name + ":\n    " + strings.Join(lines, "\n    ") + "\n"
}

// TestDocs wants every preset to say what one needs to know, in lines that fit into a table.
func TestDocs(t *testing.T) {
	for _, p := range provider.All {
		d := p.Doc
		for name, text := range map[string]string{"Title": d.Title, "URL": d.URL, "Signature": d.Signature, "Signed": d.Signed, "ID": d.ID, "Config": d.Config} {
			require.NotEmpty(t, text, "%s: Doc.%s", p.Name, name)
		}
		for _, text := range append(append([]string{d.Title, d.URL, d.Signature, d.Signed, d.Tolerance, d.ID, d.Type, d.Time, d.Batch, d.Handshake, d.Retries}, d.Notes...), d.Unverified...) {
			require.NotContains(t, text, "\n", p.Name)
		}
	}
}

// TestExamples loads every example as the services would, with genuine credentials for its variables and files.
func TestExamples(t *testing.T) {
	for _, p := range provider.All {
		t.Run(p.Name, func(t *testing.T) {
			text := fillIn(t, p, example(p))
			f, err := settings.Parse(filepath.Join(t.TempDir(), "catchment.yaml"), []byte(text), settings.NeedIngress, settings.NeedSources)
			require.NoError(t, err, text)
			require.Equal(t, p.Name, f.Sources[p.Name].Provider)
		})
	}
}

// fillIn sets the example's variables, and writes its files, whose paths it makes ones in a new folder.
func fillIn(t *testing.T, p *provider.Provider, text string) string {
	t.Helper()
	var file struct{ Sources map[string]exampleSource }
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	require.NoError(t, dec.Decode(&file), text)
	source := file.Sources[p.Name]
	set := func(text string, value any) {
		if name, ok := strings.CutPrefix(text, "${"); ok {
			require.NotNil(t, value, "%s: its credentials have nothing for %s", p.Name, text)
			t.Setenv(strings.TrimSuffix(name, "}"), fmt.Sprint(value))
		}
	}
	c := p.NewCredentials()
	for _, s := range source.Secrets {
		set(s.Value.Reveal(), p.NewCredentials().Secret)
		if s.File != "" {
			path := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(path, []byte(p.NewCredentials().Secret+"\n"), 0o600))
			text = strings.ReplaceAll(text, s.File, path)
		}
	}
	for name, value := range source.Options {
		if s, ok := value.(string); ok {
			set(s, c.Options[name])
		}
	}
	return text
}

// exampleSource is what in an example may stand for something else.
type exampleSource struct {
	Secrets []exampleSecret
	Options map[string]any
}

type exampleSecret settings.SecretSpec

// UnmarshalYAML takes a secret in either of its forms.
func (s *exampleSecret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		s.Value = config.NewSecret(n.Value)
		return nil
	}
	var m struct{ Value, File string }
	if err := n.Decode(&m); err != nil {
		return err
	}
	s.Value, s.File = config.NewSecret(m.Value), m.File
	return nil
}
