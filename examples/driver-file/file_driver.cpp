// What it is: a driver for pg_eventbus in one file: events become lines of JSON in the files of a directory (README.md).
// Who calls it: whoever loads pg_eventbus_file.so: create_broker to check, the sender to deliver.
// Never: writes outside of its directory, or tells as delivered what is not written as a whole.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "broker/driver.hpp"
#include "broker/stream/redacted_driver.hpp"
#include "core/event_id.hpp"
#include "core/json.hpp"
#include "core/time_text.hpp"

namespace {

using namespace eventbus;
using namespace eventbus::broker;

std::string quoted(std::string_view text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string line_of(const Event& event, std::string_view source) {
    EventIdText id;
    std::array<char, rfc3339_length> time;
    std::string line = "{\"id\":" + quoted(to_text(event.id, id)) + ",\"topic\":" + quoted(event.topic);
    if (event.key) line += ",\"key\":" + quoted(*event.key);
    line += ",\"time\":" + quoted(rfc3339(event.published_at, time)) + ",\"source\":" + quoted(source);
    line += ",\"content_type\":" + quoted(event.content_type);
    if (!event.headers.empty()) line += ",\"headers\":" + std::string(event.headers);
    line += ",\"payload\":" + (is_json(event.payload) ? std::string(event.payload) : quoted(event.payload));
    for (char& c : line) c = c == '\n' || c == '\r' ? ' ' : c;  // JSON has them only where a blank would do as well
    return line + "}\n";
}

std::string flaw_in_name(std::string_view part) {
    return part.find('/') == std::string_view::npos ? "" : "has a \"/\", which no file's name may have";
}

class FileDriver final : public Driver {
 public:
    explicit FileDriver(const BrokerSettings& settings)
        : sync_(*static_cast<const bool*>(settings.own.get())),
          source_(settings.source),
          path_('/' + settings.url.path),
          directory_(open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
        link_.state = LinkState::up;  // there is nothing to wait for
        if (directory_ < 0) go_down(Remedy::fix_settings, "could not open directory \"" + path_ + '"');
    }
    ~FileDriver() override { close(directory_); }
    Interest interest() const override { return {}; }
    TimePoint wake_at() const override { return files_.empty() && settled_.empty() ? TimePoint::max() : TimePoint(); }
    bool offer(const Outgoing& outgoing) override {
        if (link_.state != LinkState::up) return false;
        const std::string name(outgoing.name);
        if (name.empty() || name.front() == '.' || name.size() > 255 || !flaw_in_name(name).empty()) {
            settle({outgoing.ticket}, Verdict::refused, Remedy::park, "no file may have the name \"" + name + '"');
        } else if (outgoing.event->is_bytes) {
            settle({outgoing.ticket}, Verdict::refused, Remedy::park, "the payload is bytes, not text");
        } else {
            files_[name].first += line_of(*outgoing.event, source_);
            files_[name].second.push_back(outgoing.ticket);
        }
        return true;
    }
    Link drive(Ready, TimePoint) override {
        for (const auto& [name, file] : files_)
            link_.state == LinkState::up ? append(name, file.first, file.second)
                                         : settle(file.second, Verdict::unknown, Remedy::retry, link_.reason);
        files_.clear();
        return link_;
    }
    std::size_t settle(std::span<Settlement> out) override { return drain(settled_, taken_, out); }
    Look look() const override {
        Look look;
        look.done = link_.state == LinkState::up;  // else drive() says why not
        if (look.done) look.found("connect", "directory \"" + path_ + "\" is there");
        return look;
    }

 private:
    using Tickets = std::vector<std::uint64_t>;

    void append(const std::string& name, const std::string& lines, const Tickets& tickets) {
        const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
        errno = ENOSPC;  // where it writes a part only, no call says so
        const int fd = openat(directory_, name.c_str(), flags, 0640);
        struct stat before {};
        if (fd < 0 || fstat(fd, &before) != 0 || !S_ISREG(before.st_mode)) {
            const std::string why = fd < 0 ? std::strerror(errno) : "It is no regular file";
            settle(tickets, Verdict::refused, Remedy::fix_settings, "could not open \"" + name + "\": " + why);
        } else if (write(fd, lines.data(), lines.size()) == static_cast<ssize_t>(lines.size()) &&
                   (!sync_ || fdatasync(fd) == 0)) {
            settle(tickets, Verdict::delivered, Remedy::none, "");
        } else {
            go_down(Remedy::retry, "could not write \"" + name + '"');
            if (ftruncate(fd, before.st_size) != 0) link_.reason += "; half a line may be left in it";
            settle(tickets, Verdict::unknown, Remedy::retry, link_.reason);
        }
        if (fd >= 0) close(fd);
    }
    void settle(const Tickets& tickets, Verdict verdict, Remedy remedy, const std::string& why) {
        for (const auto ticket : tickets) settled_.push_back({ticket, verdict, remedy, why});
    }
    void go_down(Remedy remedy, const std::string& what) {
        link_ = {LinkState::down, remedy, what + ": " + std::strerror(errno)};
    }

    const bool sync_;
    const std::string source_;
    const std::string path_;
    const int directory_;
    Link link_;
    std::map<std::string, std::pair<std::string, Tickets>> files_;  // what the next drive() writes
    std::vector<Settlement> settled_;
    std::size_t taken_ = 0;
};

Handle read_broker(const BrokerSettings&, const Options& options, IdleOptions&) {
    const auto sync = options.find("sync");
    return std::make_shared<bool>(sync ? sync->boolean() : true);
}

constexpr std::array<Scheme, 1> schemes{{{"file", 0, false}}};
constexpr std::array<std::string_view, 1> kinds{"file"};
constexpr std::array<std::string_view, 1> broker_options{"sync"};

const Module module{.protocol = "file",
                    .schemes = schemes,
                    .kinds = kinds,
                    .broker_options = broker_options,
                    .longest_name = 255,
                    .flaw_in_name = flaw_in_name,
                    .read_broker = read_broker,
                    .connect = [](const BrokerSettings& settings, unsigned, TimePoint) {
                        return redacted(std::make_unique<FileDriver>(settings), settings);
                    }};

}  // namespace

extern "C" __attribute__((visibility("default"))) const Module* eventbus_driver_module() {
    return &module;
}
