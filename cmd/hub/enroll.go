package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"edgehub/internal/config"
	"edgehub/pkg/core"
	"edgehub/pkg/forward"

	"github.com/spf13/cobra"
)

func newEnroll(io console) *cobra.Command {
	var sites, creds string
	var replace bool
	cmd := &cobra.Command{
		Use:   "enroll SITE",
		Short: "Let a site's uplink into the core",
		Long: `Let a site's uplink into the core: make a key pair, add the public key to the
file of sites (cluster.sites of every core node, which must be started again),
and write the credentials file for the site's uplink. Its secret is stored
nowhere else.`,
		Args: argument("a SITE"),
		RunE: func(_ *cobra.Command, args []string) error {
			site := args[0]
			if err := forward.CheckSite(site); err != nil {
				return &usageError{err}
			}
			if creds == "" {
				creds = site + ".creds"
			}
			if _, err := os.Lstat(creds); err == nil && !replace {
				return fmt.Errorf("%s exists: name another by --creds, or say --replace", creds)
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			key, secret, err := core.Enroll(site)
			if err != nil {
				return err
			}
			// The secret first: a site in the list without credentials is harmless,
			// a key nobody can use is not worth having.
			if err := writeSecret(creds, secret); err != nil {
				return err
			}
			if err := config.AddSite(sites, config.Site{Name: site, NKey: key}, replace); err != nil {
				return errors.Join(err, os.Remove(creds))
			}
			_, err = fmt.Fprintf(io.out, "%s may forward: its key is in %s, its credentials in %s (credentials: of uplink.yaml)\n", site, sites, creds)
			return err
		},
	}
	cmd.Flags().StringVar(&sites, "sites", "sites.yaml", "file of sites, created if missing")
	cmd.Flags().StringVar(&creds, "creds", "", "credentials file to write (default SITE.creds)")
	cmd.Flags().BoolVar(&replace, "replace", false, "give a site that is there a new key, which ends the old one")
	return cmd
}

// writeSecret writes a file that only its owner may read.
func writeSecret(path string, b []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
