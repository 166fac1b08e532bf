package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// minimumSize is the smallest file system that mkfs.xfs makes.
const minimumSize = 300 << 20

// volume is an XFS file system in a sparse file, mounted at mountpoint. Each of its steps may be
// repeated after a crash at any point.
type volume struct{ mountpoint string }

func (v volume) image() string { return v.mountpoint + ".img" }

// create makes and mounts the file system. A file without the finished name was never in use.
func (v volume) create(ctx context.Context, size int64) error {
	if _, err := os.Stat(v.image()); err == nil {
		return v.mount(ctx)
	}
	if err := os.MkdirAll(filepath.Dir(v.mountpoint), 0o755); err != nil {
		return err
	}
	unfinished := v.image() + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := resize(unfinished, size); err != nil {
		return err
	}
	if err := command(ctx, "mkfs.xfs", "-q", unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, v.image()); err != nil {
		return err
	}
	return v.mount(ctx)
}

// mount does nothing for a file system that is mounted. The loop device goes with the mount.
func (v volume) mount(ctx context.Context) error {
	mounted, err := v.isMounted()
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(v.mountpoint, 0o755); err != nil {
		return err
	}
	return command(ctx, "mount", "-t", "xfs", "-o", "loop", v.image(), v.mountpoint)
}

// grow raises the size of the file, of its loop device and of the mounted file system.
func (v volume) grow(ctx context.Context, size int64) error {
	if err := v.mount(ctx); err != nil {
		return err
	}
	info, err := os.Stat(v.image())
	if err != nil {
		return err
	}
	if info.Size() < size {
		if err := resize(v.image(), size); err != nil {
			return err
		}
	}
	device, err := exec.CommandContext(ctx, "losetup", "--noheadings", "--output", "NAME", "--associated", v.image()).Output()
	if err != nil {
		return fmt.Errorf("finding the loop device: %w", err)
	}
	if err := command(ctx, "losetup", "--set-capacity", strings.TrimSpace(string(device))); err != nil {
		return err
	}
	return command(ctx, "xfs_growfs", v.mountpoint)
}

// remove unmounts the file system and deletes it. What a dying pod still holds is freed when the
// pod lets go.
func (v volume) remove() error {
	if mounted, err := v.isMounted(); err != nil {
		return err
	} else if mounted {
		if err := syscall.Unmount(v.mountpoint, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", v.mountpoint, err)
		}
	}
	for _, path := range []string{v.mountpoint, v.image()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (v volume) isMounted() (bool, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer func() { _ = mounts.Close() }()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == v.mountpoint {
			return true, nil
		}
	}
	return false, lines.Err()
}

func resize(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// command runs a program and, when it fails, returns what it said.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
