package provider

// Options are the options that the preset knows besides public_url and tolerance.
func (p *Provider) Options() []string { return p.options }
