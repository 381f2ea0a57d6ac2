//go:build !mutant

package main

import "github.com/spf13/cobra"

// proveMutants does nothing: only a build with the tag mutant can run broken builds.
func proveMutants(*app, *cobra.Command, *proveFlags) {}
