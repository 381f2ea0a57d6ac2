package nemesis

import (
	"slices"
	"strings"
	"time"
)

// What a fault breaks.
const (
	kafka     = "kafka"
	postgres  = "postgres"
	store     = "store"
	ingress   = "ingress"
	processor = "processor"
	archiver  = "archiver"
	providers = "providers"
)

// Kinds are all faults, by name.
func Kinds() []Kind {
	all := slices.Concat(kafkaKinds(), linkKinds(), serviceKinds(), groupKinds(), postgresKinds(), storeKinds(), providerKinds())
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return all
}

const second = time.Second
