package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"edgehub/internal/config"
	"edgehub/pkg/auth"

	"github.com/spf13/cobra"
)

func newUser(io console) *cobra.Command {
	var file string
	sub := []*cobra.Command{newUserAdd(io, &file), newUserRemove(io, &file), newUserList(io, &file)}
	for _, c := range sub {
		c.Flags().StringVar(&file, "file", "users.yaml", "file of users (mqtt.users)")
	}
	return group("user", "Users with passwords and their file", sub...)
}

const tellHub = "a running hub takes it over on SIGHUP"

func newUserAdd(io console, file *string) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user; the password is one line of standard input",
		Long: `Add a user to a file of users, which is created if missing and which only its
owner may read. The password is one line of standard input; its argon2id hash is
what the file keeps. ` + strings.ToUpper(tellHub[:1]) + tellHub[1:] + `.`,
		Args: argument("a NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if err := auth.CheckUserName(name); err != nil {
				return &usageError{err}
			}
			password, err := readPassword(io.in)
			if err != nil {
				return err
			}
			hash, err := auth.HashPassword(password)
			if err != nil {
				return err
			}
			err = config.ChangeUsers(*file, func(users []auth.User) ([]auth.User, error) {
				i := slices.IndexFunc(users, func(u auth.User) bool { return u.Name == name })
				switch {
				case i < 0:
					return append(users, auth.User{Name: name, Hash: hash}), nil
				case !replace:
					return nil, fmt.Errorf("%s has user %s already: say --replace to give it a new password", *file, name)
				}
				users[i].Hash = hash
				return users, nil
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(io.out, "%s is in %s: %s\n", name, *file, tellHub)
			return err
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "give a user who is there a new password")
	return cmd
}

// readPassword reads one line without its end.
func readPassword(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, auth.MaxPassword+3)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", errors.New("no password: write it as one line of standard input, as in: echo secret | hub user add NAME")
	}
	return line, nil
}

func newUserRemove(io console, file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user",
		Args:  argument("a NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			err := config.ChangeUsers(*file, func(users []auth.User) ([]auth.User, error) {
				left := slices.DeleteFunc(slices.Clone(users), func(u auth.User) bool { return u.Name == name })
				if len(left) == len(users) {
					return nil, fmt.Errorf("%s has no user %s", *file, name)
				}
				return left, nil
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(io.out, "%s is removed from %s: %s\n", name, *file, tellHub)
			return err
		},
	}
}

func newUserList(io console, file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			users, err := config.LoadUsers(*file)
			if err != nil {
				return err
			}
			for _, u := range users {
				if _, err := fmt.Fprintln(io.out, u.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
