package provider_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/provider/providertest"
)

func TestProviders(t *testing.T) {
	for _, p := range provider.All {
		t.Run(p.Name, func(t *testing.T) { providertest.Run(t, p) })
	}
}

func TestAllIsSorted(t *testing.T) {
	require.True(t, slices.IsSortedFunc(provider.All, func(a, b *provider.Provider) int { return strings.Compare(a.Name, b.Name) }))
	for _, p := range provider.All {
		found, ok := provider.ByName(p.Name)
		require.True(t, ok)
		require.Same(t, p, found)
		require.NotEmpty(t, p.Doc.URL)
	}
}

func TestUnknownProvider(t *testing.T) {
	_, err := provider.New(provider.Config{Provider: "stripes"})
	var wrong *provider.ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "provider", wrong.Key)
	require.EqualError(t, wrong.Err, `unknown provider "stripes": expected one of `+provider.Names())
}
