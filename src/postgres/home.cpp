#include "postgres/home.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

extern "C" {
#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
}

namespace eventbus {

namespace {

// Relative to the data directory, where every process of the server is.
constexpr const char* copy_file = "pg_eventbus.copy";
constexpr const char* upgraded_file = "pg_eventbus.upgraded";
constexpr int id_length = 16;

// Also where it could not be written: processes inherit it from the postmaster.
char started_as[id_length + 1] = "";

bool exists(const char* file) {
    return access(file, F_OK) == 0;
}

// Durable; a failure is told, and the server starts all the same.
void write_file(const char* name, const char* words) {
    char temporary[MAXPGPATH];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, pg_file_create_mode);
    const auto length = static_cast<ssize_t>(strlen(words));
    const bool written = fd >= 0 && write(fd, words, static_cast<size_t>(length)) == length && pg_fsync(fd) == 0;
    const int error = errno;
    if (fd >= 0) close(fd);
    if (written && durable_rename(temporary, name, LOG) == 0) return;
    errno = error;
    ereport(LOG, (errcode_for_file_access(), errmsg("pg_eventbus could not write file \"%s\": %m", name),
                  errdetail("It says that this server is %s, and is written at the next start like this one.",
                            name == copy_file ? "a copy" : "being upgraded")));
}

void read_copy(char* id) {
    id[0] = '\0';
    const int fd = open(copy_file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    const ssize_t got = read(fd, id, id_length);
    id[std::max<ssize_t>(0, got)] = '\0';
    close(fd);
}

}  // namespace

void note_start() {
    if (IsBinaryUpgrade) {
        write_file(upgraded_file, "");
        return;
    }
    if ((!exists("backup_label") && !exists("recovery.signal")) || exists("standby.signal")) return;
    unsigned char number[id_length / 2];
    if (!pg_strong_random(number, sizeof number)) return;
    for (unsigned i = 0; i < sizeof number; ++i) snprintf(started_as + 2 * i, 3, "%02x", number[i]);
    write_file(copy_file, started_as);
}

char* home_of(Oid database) {
    char id[id_length + 1];
    if (started_as[0] != '\0')
        strlcpy(id, started_as, sizeof id);
    else
        read_copy(id);
    return psprintf(UINT64_FORMAT "/%u/%s", GetSystemIdentifier(), database, id);
}

bool was_upgraded() {
    return exists(upgraded_file);
}

void forget_upgrade() {
    (void)durable_unlink(upgraded_file, LOG);
}

bool is_same_but_for_server(const char* home, Oid database) {
    const char* mine = strchr(home_of(database), '/');
    const char* rest = strchr(home, '/');
    return rest != nullptr && strcmp(rest, mine) == 0;
}

}  // namespace eventbus
