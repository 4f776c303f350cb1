package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// mounts gives this mount namespace its own /proc and /run, and copies of /var
// and /etc that keep changes below dir.
func mounts(dir string) error {
	// Shared within, so that kubelet's mounts reach pods that ask for them, and
	// cut off from the machine's.
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return err
	}
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	// containerd's shims, iptables and CNI keep sockets and locks there, by
	// names that no option changes.
	if err := mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, path := range []string{"/var", "/etc"} {
		upper := filepath.Join(dir, "node"+path)
		work := upper + ".work"
		for _, folder := range []string{upper, work} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work)
		if err := mount("overlay", path, "overlay", 0, options); err != nil {
			return err
		}
	}
	// The node's name must resolve, for logs and exec. No other name does: there
	// is nothing behind this network.
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", advertisedAddress, nodeName)
	if err := replace("/etc/hosts", hosts); err != nil {
		return err
	}
	if err := replace("/etc/resolv.conf", ""); err != nil {
		return err
	}
	return sysctls(dir)
}

// replace writes a file anew: the old one may be a link or a mount of its own.
func replace(path, text string) error {
	_ = syscall.Unmount(path, syscall.MNT_DETACH)
	_ = os.Remove(path)
	return os.WriteFile(path, []byte(text), 0o644)
}

// sysctls shows kubelet the settings that it wants, so that it does not make
// them: they belong to the whole machine.
func sysctls(dir string) error {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
		"kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join(dir, "node/sysctl", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := syscall.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}
