package config

import (
	"reflect"
	"sort"
	"strings"

	"go.yaml.in/yaml/v4"
)

// overrides puts the values of PREFIX_SECTION__KEY variables into the document, as if they stood there.
func (d *decoder) overrides(root *yaml.Node, t reflect.Type) {
	if d.EnvPrefix == "" || root.Kind != yaml.MappingNode {
		return
	}
	env := d.Environ()
	sort.Strings(env)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, d.EnvPrefix+"_")
		if !ok || !strings.Contains(rest, "__") {
			continue
		}
		d.override(root, t, name, strings.Split(rest, "__"), value)
	}
}

func (d *decoder) override(n *yaml.Node, t reflect.Type, name string, keys []string, value string) {
	for i, k := range keys {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		var key string
		switch {
		case t.Kind() == reflect.Struct && !isLeaf(t):
			var fromFile bool
			if key, t, fromFile = structKey(t, k); fromFile {
				value = "file:" + value
			}
		case t.Kind() == reflect.Map:
			for j := 0; j+1 < len(n.Content); j += 2 {
				if envName(n.Content[j].Value) == k {
					key, t = n.Content[j].Value, t.Elem()
					break
				}
			}
		}
		if key == "" {
			d.errs = append(d.errs, Error{Pos{File: name}, "", "this environment variable names no key of the configuration: there is no " + strings.ToLower(k)})
			return
		}
		if i == len(keys)-1 {
			setKey(n, key, envNode(t, name, value))
			return
		}
		n = child(n, key, name)
		if n.Kind != yaml.MappingNode {
			d.errs = append(d.errs, Error{Pos{File: name}, "", "this environment variable names a key below " + key + ", which is no mapping"})
			return
		}
	}
}

// structKey finds the key that is spelt so in a variable's name. NAME_FILE is the secret NAME, in a file.
func structKey(t reflect.Type, spelt string) (key string, of reflect.Type, fromFile bool) {
	secret, inFile := strings.CutSuffix(spelt, "_FILE")
	of = t
	for f := range fields(t) {
		switch ft := t.FieldByIndex(f.index).Type; {
		case envName(f.key) == spelt:
			return f.key, ft, false
		case inFile && ft == typeSecret && envName(f.key) == secret:
			key, of, fromFile = f.key, ft, true
		}
	}
	return key, of, fromFile
}

// envName is how a key is spelt in a variable's name.
func envName(key string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(key))
}

// envNode is a scalar with the variable's text, or a list of them where a list is wanted. A $ in it is plain text.
func envNode(t reflect.Type, name, value string) *yaml.Node {
	scalar := func(s string) *yaml.Node {
		tag := "!!str"
		switch t.Kind() {
		case reflect.Bool, reflect.Int, reflect.Int64, reflect.Int32:
			tag = ""
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: strings.ReplaceAll(s, "$", "$$"), HeadComment: name}
	}
	if t.Kind() != reflect.Slice || t == typeStrings {
		return scalar(value)
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, HeadComment: name}
	for s := range strings.SplitSeq(value, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list.Content = append(list.Content, scalar(s))
		}
	}
	return list
}

func child(n *yaml.Node, key, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && !isNull(deref(n.Content[i+1])) {
			return deref(n.Content[i+1])
		}
	}
	c := &yaml.Node{Kind: yaml.MappingNode, HeadComment: name}
	setKey(n, key, c)
	return c
}

func setKey(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}
