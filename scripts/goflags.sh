#!/bin/sh
# goflags.sh: prints the flags of each build of a program that is shipped. They make the services small enough for images of 40 MB:
# no MessagePack in gin, and no inlining into packages that work only at the start or seldom.
# Why so: docs/decisions/2026-11-27-size-of-the-programs.md
set -eu
echo -trimpath -tags=nomsgpack
for package in github.com/aws/... github.com/antlr4-go/... github.com/go-jose/... github.com/pressly/... github.com/santhosh-tekuri/... \
  github.com/twmb/franz-go/pkg/kadm go.yaml.in/... google.golang.org/... cel.dev/cel-go/cel cel.dev/cel-go/checker/... cel.dev/cel-go/common/cost \
  cel.dev/cel-go/common/env cel.dev/cel-go/common/stdlib cel.dev/cel-go/ext cel.dev/cel-go/parser/...; do
  echo "-gcflags=$package=-l"
done
