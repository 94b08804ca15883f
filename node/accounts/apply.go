package accounts

import (
	"fmt"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// Most is how many accounts a file has room for.
const Most = 100_000

// Show returns an account as the API tells of it.
func Show(e access.Entry) admin.Account {
	return admin.Account{Name: e.Name, Groups: e.Groups, Admin: e.Admin, Password: !e.Hash.IsZero(), Changed: e.Changed.String()}
}

// Apply makes or changes an account as the API was asked to. hash computes the hash of a new password.
func (b *Book) Apply(name string, c admin.AccountChange, hash func([]byte, access.Cost) (access.Hash, error)) (made bool, err error) {
	change := Change{Groups: c.Groups, Admin: c.Admin}
	if c.Password != nil {
		if len(*c.Password) > access.MaxPassword {
			return false, &BadError{fmt.Errorf("the password has %d bytes, at most %d are possible", len(*c.Password), access.MaxPassword)}
		}
		cost := access.DefaultCost
		if c.Random {
			cost = access.RandomCost
		}
		var h access.Hash // "" is no password: certificates only
		if *c.Password != "" {
			if h, err = hash([]byte(*c.Password), cost); err != nil {
				return false, err
			}
		}
		change.Hash = &h
	}
	return b.Set(name, change)
}
