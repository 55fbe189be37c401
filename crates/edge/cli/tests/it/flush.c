/* A disk whose flushes fail, for one process: preloaded, it stands before the C library's fsync and fdatasync. While the
 * file that FLUSH_FAILS names is there, flushes of files whose name ends as its text does are refused as a device
 * does. What was written stays in the system's memory, where the next read finds it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int refused(int file) {
  const char *flag = getenv("FLUSH_FAILS");
  int asked = flag ? open(flag, O_RDONLY | O_CLOEXEC) : -1;
  if (asked < 0) return 0;
  char end[64], link[64], path[PATH_MAX];
  ssize_t ends = read(asked, end, sizeof end);
  close(asked);
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path);
  return ends > 0 && length >= ends && memcmp(path + length - ends, end, ends) == 0;
}

static int flushed(long call, int file) {
  if (refused(file)) {
    errno = EIO;
    return -1;
  }
  return syscall(call, file);
}

int fsync(int file) { return flushed(SYS_fsync, file); }
int fdatasync(int file) { return flushed(SYS_fdatasync, file); }
