// What it is: tests of URL parsing, redaction, broker options and password files.
// Who calls it: make -C test/unit core.
// Never: talks to a network.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>
#include <string>

#include "core/bad_input.hpp"
#include "core/broker_settings.hpp"

using namespace eventbus;

namespace {

BadInput complaint(const std::function<void()>& action) {
    try {
        action();
    } catch (const BadInput& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return BadInput("");
}

BrokerOptions read(const std::string& json) {
    return read_broker_options(Options(known_broker_options(), json));
}

class PasswordFile : public ::testing::Test {
 protected:
    PasswordFile() { EXPECT_NE(mkdtemp(directory_), nullptr); }
    ~PasswordFile() override {
        unlink(path().c_str());
        rmdir(directory_);
    }
    std::string path() const { return std::string(directory_) + "/password"; }
    BrokerSettings with(const std::string& contents) {
        std::ofstream(path(), std::ios::binary) << contents;
        BrokerSettings settings;
        settings.url = parse_url("redis://h", 6379);
        settings.options.password_file = path();
        return settings;
    }

 private:
    char directory_[32] = "/tmp/eventbus_core_XXXXXX";
};

}  // namespace

TEST(Url, EveryPart) {
    const Url url = parse_url("AMQPS://us%65r:p%40s%2Fs@example.org:5671/my%2Fvhost?heartbeat=5&x=a%26b", 1);
    EXPECT_EQ(url.scheme, "amqps");
    EXPECT_TRUE(url.has_user);
    EXPECT_EQ(url.user, "user");
    EXPECT_TRUE(url.has_password);
    EXPECT_EQ(url.password, "p@s/s");
    ASSERT_EQ(url.hosts.size(), 1u);
    EXPECT_EQ(url.hosts[0].name, "example.org");
    EXPECT_EQ(url.hosts[0].port, 5671);
    EXPECT_TRUE(url.has_path);
    EXPECT_EQ(url.path, "my/vhost");
    EXPECT_EQ(url.query.at("heartbeat"), "5");
    EXPECT_EQ(url.query.at("x"), "a&b");
}

TEST(Url, PathAbsentOrEmpty) {
    EXPECT_FALSE(parse_url("amqp://h", 1).has_path);
    const Url url = parse_url("amqp://h/", 1);
    EXPECT_TRUE(url.has_path);
    EXPECT_EQ(url.path, "");
}

TEST(Url, PasswordWithoutUser) {
    const Url url = parse_url("redis://:secret@h", 6379);
    EXPECT_FALSE(url.has_user);
    EXPECT_TRUE(url.has_password);
    EXPECT_EQ(url.password, "secret");
    EXPECT_EQ(parse_url("redis://u:a@b:c@h", 1).password, "a@b:c");
}

TEST(Url, ListOfHosts) {
    const Url url = parse_url("redis://a,b:2,[::1]:3,[fe80::1%25eth0]", 9);
    ASSERT_EQ(url.hosts.size(), 4u);
    EXPECT_EQ(url.hosts[0].shown(), "a:9");
    EXPECT_EQ(url.hosts[1].shown(), "b:2");
    EXPECT_EQ(url.hosts[2].shown(), "[::1]:3");
    EXPECT_EQ(url.hosts[3].name, "fe80::1%eth0");
}

TEST(Url, UnixSockets) {
    Url url = parse_url("redis:///run/redis.sock?db=1", 6379);
    ASSERT_EQ(url.hosts.size(), 1u);
    EXPECT_TRUE(url.hosts[0].is_unix());
    EXPECT_EQ(url.hosts[0].shown(), "/run/redis.sock");
    EXPECT_EQ(url.hosts[0].port, 0);
    EXPECT_FALSE(url.has_path);
    EXPECT_EQ(url.query.at("db"), "1");

    url = parse_url("redis://u:p@%2Frun%2Fredis.sock/1", 6379);
    EXPECT_EQ(url.hosts[0].name, "/run/redis.sock");
    EXPECT_EQ(url.path, "1");
    EXPECT_EQ(url.password, "p");
}

TEST(Url, WithoutAHost) {
    const Url url = parse_url("file:///var/log/my%20events.jsonl?x=1", 0, false);
    EXPECT_TRUE(url.hosts.empty());
    EXPECT_EQ(url.path, "var/log/my events.jsonl");
    EXPECT_EQ(url.query.at("x"), "1");
    EXPECT_EQ(parse_url("file:///" + std::string(4000, 'd'), 0, false).path.size(), 4000u) << "it is no socket";
    for (const char* text :
         {"file://", "file:///", "file://host/path", "file://u:hunter2@host/p", "file://?x=hunter2"}) {
        const BadInput error = complaint([&] { parse_url(text, 0, false); });
        EXPECT_EQ(error.message(), "malformed broker URL") << text;
        EXPECT_NE(error.hint().find("Write file:///path, with"), std::string::npos) << text;
        EXPECT_EQ((error.message() + error.detail() + error.hint()).find("hunter2"), std::string::npos) << text;
    }
    EXPECT_EQ(redact_url("file:///" + std::string(200, 'd')), "file:///" + std::string(200, 'd'));
    EXPECT_EQ(redact_url("file:///a?key=hunter2"), "file:///a?***");
}

TEST(Url, LongerThanAnyIsRefused) {
    const std::string host(64 * 1024, 'h');
    EXPECT_NO_THROW(parse_url("redis://" + host.substr(8), 6379));
    EXPECT_THROW(parse_url("redis://" + host, 6379), BadInput);
    EXPECT_EQ(redact_url("redis://u:hunter2@" + host).find("hunter2"), std::string::npos);
}

TEST(Url, MalformedIsRefusedWithoutQuotingIt) {
    const char* bad[] = {
        "",
        "hunter2",
        "://hunter2",
        "1x://hunter2",
        "re dis://hunter2",
        "redis://",
        "redis:///",
        "redis://?hunter2=1",
        "redis://u:hunter2@",
        "redis://u:hunter2@:6379",
        "redis://hunter2:0",
        "redis://hunter2:65536",
        "redis://hunter2:99999999999999999999",
        "redis://hunter2:12x",
        "redis://hunter2:",
        "redis://a,,hunter2",
        "redis://hunter2,",
        "redis://::1",
        "redis://[::1",
        "redis://[::1]hunter2",
        "redis://[]:1",
        "redis://u:hunter2%@h",
        "redis://u:hunter2%4@h",
        "redis://u:hunter2%zz@h",
        "redis://u:hunter2%0a@h",
        "redis://u:hunter2%00@h",
        "redis://u:hunter2\n@h",
        "redis://hunter2\x7f",
        "redis://hunter2 x",
        "redis://h?hunter2",
        "redis://h?=hunter2",
        "redis://h?a=1&a=hunter2",
        "redis://%2Frun%2Fhunter2:5",
        "redis://hunter2%2Fx",
        "amqp://app:1234/hunter2@rabbit",
        "amqp://app:1234?hunter2@rabbit",
        "amqp://app:1?hunter2=x@rabbit",
        "amqp://app/hunter2:x@rabbit/vhost",
        "amqp://app:x@rabbit/hunter2@y",
    };
    for (const char* text : bad) {
        const BadInput error = complaint([&] { parse_url(text, 6379); });
        EXPECT_EQ(error.message(), "malformed broker URL") << text;
        EXPECT_FALSE(error.detail().empty()) << text;
        EXPECT_NE(error.hint().find("scheme://user:password@host:port/path"), std::string::npos) << text;
        EXPECT_NE(error.hint().find("percent-encoded"), std::string::npos) << text;
        EXPECT_EQ((error.message() + error.detail() + error.hint()).find("hunter2"), std::string::npos) << text;
    }
    EXPECT_THROW(parse_url("redis:///" + std::string(108, 'x'), 1), BadInput);
}

TEST(Url, Scheme) {
    EXPECT_EQ(url_scheme("MQTTS://whatever at all"), "mqtts");
    EXPECT_THROW(url_scheme("host:1883"), BadInput);
}

TEST(Url, RedactionKeepsWhatIsNotSecret) {
    EXPECT_EQ(redact_url("redis://u:hunter2@h:1/0?db=1"), "redis://u:***@h:1/0?db=1");
    EXPECT_EQ(redact_url("redis://h:1/0"), "redis://h:1/0");
    EXPECT_EQ(redact_url("redis://u@h:1/0"), "redis://u@h:1/0");
    EXPECT_EQ(redact_url("redis://:hunter2@a,b"), "redis://:***@a,b");
    EXPECT_EQ(redact_url("REDIS://:hunter2@a"), "redis://:***@a");
}

TEST(Url, RedactionNeverLeaks) {
    const char* weird[] = {
        "redis://u:hun@ter2@h",  "redis://u:a@hunter2/b@h",    "redis://u:1/hunter2@h",
        "redis://u:hunter2",     "redis://u:hunter2@",         "redis://u:hunter2%@h",
        "u:hunter2@h",           "redis:/u:hunter2@h",         "redis://u:1?hunter2=@h",
        "redis://u:hunter2\n@h", "redis://h?password=hunter2", "redis://u:1,hunter2@h",
        "redis://u:#hunter2@h",  "redis://u:x://hunter2@h",
    };
    for (const char* text : weird) {
        const std::string shown = redact_url(text);
        EXPECT_EQ(shown.find("ter2"), std::string::npos) << text << " -> " << shown;
        EXPECT_NE(shown.find("***"), std::string::npos) << text << " -> " << shown;
    }
    EXPECT_EQ(redact_url("redis://u:hunter2"), "redis://***");
    EXPECT_EQ(redact_url("nothing"), "***");
}

TEST(Options, Defaults) {
    const BrokerOptions options = read("{}");
    EXPECT_TRUE(options.verify);
    EXPECT_EQ(options.connect_timeout_ms, 10000u);
    EXPECT_EQ(options.heartbeat_s, 30u);
    EXPECT_EQ(options.window, 0u);
}

TEST(Options, All) {
    const BrokerOptions options = read(
        R"({"password_file":"/p","ca_file":"/a","crl_file":"/l","tls_min_version":"1.3","cert_file":"/c","key_file":"/k","verify":false,
            "connect_timeout":0.25,"heartbeat":0,"window":1000000})");
    EXPECT_EQ(options.password_file, "/p");
    EXPECT_EQ(options.ca_file, "/a");
    EXPECT_EQ(options.crl_file, "/l");
    EXPECT_EQ(options.tls_min_version, TlsVersion::v1_3);
    EXPECT_EQ(options.cert_file, "/c");
    EXPECT_EQ(options.key_file, "/k");
    EXPECT_FALSE(options.verify);
    EXPECT_EQ(options.connect_timeout_ms, 250u);
    EXPECT_EQ(options.heartbeat_s, 0u);
    EXPECT_EQ(options.window, 1000000u);
    EXPECT_EQ(read(R"({"connect_timeout":0.0001})").connect_timeout_ms, 1u);
}

TEST(Options, WrongValuesNameTheOptionAndListTheKnown) {
    const std::pair<const char*, const char*> wrong[] = {
        {"password_file", "1"},
        {"password_file", R"("")"},
        {"ca_file", "null"},
        {"crl_file", "1"},
        {"tls_min_version", "\"1.1\""},
        {"tls_min_version", "1.3"},
        {"cert_file", "[]"},
        {"key_file", "{}"},
        {"verify", "1"},
        {"verify", R"("true")"},
        {"connect_timeout", "0"},
        {"connect_timeout", "-1"},
        {"connect_timeout", "301"},
        {"connect_timeout", R"("5 fortnights")"},
        {"connect_timeout", R"("6 min")"},
        {"heartbeat", "-1"},
        {"heartbeat", "3601"},
        {"heartbeat", "1.5"},
        {"heartbeat", R"("1500 ms")"},
        {"heartbeat", R"("2 hours")"},
        {"window", "0"},
        {"window", "1000001"},
        {"window", "true"},
        {"window", "1e300"},
    };
    for (const auto& [name, value] : wrong) {
        const std::string json = std::string("{\"") + name + "\":" + value + "}";
        const BadInput error = complaint([&] { read(json); });
        EXPECT_EQ(error.message(), std::string("invalid value for broker option \"") + name + "\"") << json;
        EXPECT_NE(error.hint().find("password_file, ca_file"), std::string::npos) << json;
    }
    const BadInput unknown = complaint([] { read(R"({"passwort":"hunter2"})"); });
    EXPECT_EQ(unknown.message(), "unknown broker option \"passwort\"");
    EXPECT_EQ(unknown.hint().find("hunter2"), std::string::npos);
    EXPECT_NE(unknown.hint().find("window"), std::string::npos);
    for (const char* text : {"[]", "1", "null"})
        EXPECT_EQ(complaint([&] { read(text); }).message(), "broker options must be a JSON object");
    // Options come out of a jsonb: what cannot be parsed is a number that no double holds.
    for (const char* text : {R"({"window":1e400})", "{"})
        EXPECT_EQ(complaint([&] { read(text); }).message(), "broker options hold a number out of range");
}

TEST(Options, OfOneProtocol) {
    static constexpr std::string_view names[] = {"client_id", "patience"};
    KnownOptions known = known_broker_options("mqtt", names);
    known.is_elsewhere = [](OptionsOf of, std::string_view name) {
        return of == OptionsOf::broker && name == "confirm_timeout";
    };
    const Options given(known, R"({"client_id":"me","patience":"1 min","window":7})");
    EXPECT_EQ(read_broker_options(given).given,
              (std::set<std::string, std::less<>>{"client_id", "patience", "window"}));
    EXPECT_EQ(given.find("client_id")->filled_text("a text"), "me");
    EXPECT_EQ(given.find("patience")->whole_seconds(60), 60u);
    EXPECT_FALSE(given.find("heartbeat"));

    const BadInput wrong = complaint([&] { given.find("client_id")->must_be("a number of fish"); });
    EXPECT_EQ(wrong.message(), "invalid value for broker option \"client_id\"");
    EXPECT_EQ(wrong.detail(), "It must be a number of fish.");
    EXPECT_TRUE(wrong.hint().ends_with("heartbeat, window, client_id, patience.")) << wrong.hint();
    const BadInput another = complaint([&] { Options(known, R"({"confirm_timeout":1})"); });
    EXPECT_EQ(another.message(), "broker option \"confirm_timeout\" is not for mqtt");
    EXPECT_EQ(another.hint(), wrong.hint());
    EXPECT_EQ(complaint([&] { Options(known, R"({"will":1})"); }).message(), "unknown broker option \"will\"");
}

TEST(Options, Values) {
    static constexpr std::string_view names[] = {"x"};
    const auto reads = [](const std::string& value, auto read) -> std::string {
        const Options given({OptionsOf::route, "any", {names}, "known"}, "{\"x\":" + value + "}");
        try {
            return testing::PrintToString(read(*given.find("x")));
        } catch (const BadInput& error) {
            EXPECT_EQ(error.message(), "invalid value for route option \"x\"");
            EXPECT_EQ(error.detail(), "");
            return error.hint();
        }
    };
    const auto number = [](const Option& x) { return x.whole_number(0, INT64_MAX); };
    EXPECT_EQ(reads("9223372036854775807", number), "9223372036854775807");
    EXPECT_EQ(reads("5.0", number), "5");
    EXPECT_EQ(reads("1e3", number), "1000");
    for (const char* wrong :
         {"9223372036854775808", "18446744073709551615", "9.3e18", "-1", "1.5", "1e300", "true", "\"1\""})
        EXPECT_EQ(reads(wrong, number), "It is a whole number from 0 to 9223372036854775807.") << wrong;
    const auto list = [](const Option& x) { return x.list("a list"); };
    EXPECT_EQ(reads(R"(["a.*", "b"])", list), "\"a.*, b\"");
    EXPECT_EQ(reads("[1]", list), "It is a list.");
    EXPECT_EQ(reads(R"("a\u0000b")", list), "It is a list.");
    const auto word = [](const Option& x) { return x.one_of({"a", "b", "c"}); };
    EXPECT_EQ(reads(R"("b")", word), "1");
    EXPECT_EQ(reads(R"("d")", word), "It is \"a\", \"b\" or \"c\".");
    EXPECT_EQ(reads("1", [](const Option& x) { return x.one_of({"a", "b"}); }), "It is \"a\" or \"b\".");
    EXPECT_EQ(reads("1", [](const Option& x) { return x.boolean(); }), "It is true or false.");
    EXPECT_EQ(reads(R"("")", [](const Option& x) { return x.filled_text("a name"); }), "It is a name.");
    EXPECT_EQ(reads(R"("")", [](const Option& x) { return x.text("a name"); }), "\"\"");
}

TEST_F(PasswordFile, IsTrimmed) {
    BrokerSettings settings = with(" \t\r\n se cret\r\n");
    load_password(settings);
    EXPECT_EQ(settings.password, "se cret");
}

TEST_F(PasswordFile, UrlsPasswordIsTakenWithoutAFile) {
    BrokerSettings settings;
    settings.url = parse_url("redis://u:pw@h", 1);
    load_password(settings);
    EXPECT_EQ(settings.password, "pw");
}

TEST_F(PasswordFile, Complaints) {
    const std::string zero("a\0b", 3);
    for (const auto& contents : {std::string(" \n"), std::string(), zero, std::string(64 * 1024 + 1, 'x')}) {
        BrokerSettings settings = with(contents);
        const BadInput error = complaint([&] { load_password(settings); });
        EXPECT_EQ(error.message(), "could not read password file \"" + path() + "\"");
        EXPECT_FALSE(error.detail().empty());
    }
    BrokerSettings most = with(std::string(64 * 1024, 'x'));
    load_password(most);
    EXPECT_EQ(most.password.size(), 64u * 1024);

    BrokerSettings settings = with("x");
    unlink(path().c_str());
    EXPECT_EQ(complaint([&] { load_password(settings); }).detail(), "No such file or directory");
    settings.options.password_file = "/tmp";
    EXPECT_EQ(complaint([&] { load_password(settings); }).detail(), "It is not a regular file.");
    ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
    settings.options.password_file = path();
    EXPECT_EQ(complaint([&] { load_password(settings); }).detail(), "It is not a regular file.");
    settings.url = parse_url("redis://u:hunter2@h", 1);
    EXPECT_EQ(complaint([&] { load_password(settings); }).message(), "broker has two passwords");
}
