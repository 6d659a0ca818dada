// What it is: tests of finding modules: by name, by scheme, among ones that cannot be loaded.
// Who calls it: make -C test/unit broker, which makes the modules (loaded_module.cpp).
// Never: loads a real one.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "broker/loader.hpp"
#include "core/bad_input.hpp"

using namespace eventbus;
using namespace eventbus::broker;

namespace {

const std::filesystem::path made = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "modules";

// What one test has loaded, the others have: it stays.
class Loader : public ::testing::Test {
 protected:
    Loader() {
        char name[] = "/tmp/eventbus_modules_XXXXXX";
        EXPECT_NE(mkdtemp(name), nullptr);
        directory = name;
    }
    ~Loader() override { std::filesystem::remove_all(directory); }
    void put(const std::string& name, const std::string& as = {}) const {
        const std::string file = "pg_eventbus_" + name + ".so";
        std::filesystem::copy_file(made / file, directory + "/pg_eventbus_" + (as.empty() ? name : as) + ".so");
    }
    BadInput complaint(const std::string& url, const std::string& options = "{}") const {
        try {
            read_broker("b", url, options, directory);
        } catch (const BadInput& error) {
            return error;
        }
        ADD_FAILURE() << url << " is taken";
        return BadInput("");
    }
    std::string directory;
};

}  // namespace

TEST_F(Loader, FindsModulesByNameAndByWhatTheySay) {
    put("first");
    put("second");
    EXPECT_STREQ(load_module("first", directory)->protocol, "first");
    EXPECT_STREQ(load_module("seconds", directory)->protocol, "second");
    EXPECT_STREQ(load_module("place", directory)->protocol, "first");
    EXPECT_STREQ(load_module("shared", directory)->protocol, "first") << "the first one, where none is of that name";
    EXPECT_EQ(load_module("first", directory), load_module("place", directory));
    std::filesystem::remove_all(directory);
    EXPECT_STREQ(load_module("second", directory)->protocol, "second") << "it is remembered";

    EXPECT_EQ(read_broker("b", "FIRST://h", "{}", directory).url.hosts.at(0).shown(), "h:11");
    EXPECT_EQ(read_broker("b", "seconds://h", "{}", directory).url.hosts.at(0).port, 23);
    const BrokerSettings place = read_broker("b", "place:///a/b", "{}", directory);
    EXPECT_TRUE(place.url.hosts.empty());
    EXPECT_EQ(place.url.path, "a/b");
    EXPECT_EQ(complaint("place://host/a").message(), "malformed broker URL");
}

TEST_F(Loader, SaysWhichSchemesAndOptionsThereAre) {
    put("second");
    put("first");
    BadInput error = complaint("third://u:hunter2@h");
    EXPECT_EQ(error.message(), "unknown URL scheme \"third\"");
    EXPECT_EQ(error.detail(), "");
    EXPECT_EQ(error.hint(), "Known schemes: first, shared, place, second, seconds, shared.");
    error = complaint("zweitens://h");
    EXPECT_EQ(error.detail(), "That is German.");
    EXPECT_TRUE(error.hint().starts_with("Or first://. Write second://. Known schemes:")) << error.hint();
    EXPECT_EQ(complaint("kafka://h").detail(), "Kafka is not there yet.");

    EXPECT_NO_THROW(read_broker("b", "first://h", R"({"of_first":1})", directory));
    error = complaint("first://h", R"({"of_second":1})");
    EXPECT_EQ(error.message(), "broker option \"of_second\" is not for first");
    EXPECT_TRUE(error.hint().ends_with("window, of_first.")) << error.hint();
    EXPECT_EQ(complaint("first://h", R"({"of_third":1})").message(), "unknown broker option \"of_third\"");
    EXPECT_THROW(check_broker_option("of_first", *load_module("second", directory)), BadInput);
    EXPECT_NO_THROW(check_broker_option("window", *load_module("second", directory)));
}

TEST_F(Loader, WhatCannotBeLoadedDisablesItselfAlone) {
    put("first");
    put("alien");
    put("silent");
    std::ofstream(directory + "/pg_eventbus_broken.so") << "#!/bin/sh\nexit 1\n";
    std::ofstream(directory + "/pg_eventbus_.so") << "nameless";
    std::ofstream(directory + "/pg_eventbus_text.txt") << "no library";
    EXPECT_STREQ(load_module("place", directory)->protocol, "first");

    const BadInput unknown = complaint("nosuch://h");
    EXPECT_EQ(unknown.message(), "unknown URL scheme \"nosuch\"");
    EXPECT_NE(unknown.detail().find("Modules that could not be loaded: alien (File: " + directory), std::string::npos)
        << unknown.detail();
    EXPECT_NE(unknown.detail().find("broken (" + directory + "/pg_eventbus_broken.so: "), std::string::npos);
    EXPECT_EQ(unknown.detail().find("nameless"), std::string::npos);
    EXPECT_EQ(unknown.hint().find("alien"), std::string::npos);

    BadInput own = complaint("broken://h");
    EXPECT_EQ(own.message(), "could not load the broken module of pg_eventbus");
    EXPECT_NE(own.detail().find("pg_eventbus_broken.so"), std::string::npos);
    EXPECT_EQ(own.hint(), "Install the module and its client library; other protocols are not affected.");
    for (const char* name : {"alien", "aliens", "silent"}) {
        own = complaint(std::string(name) + "://h");
        EXPECT_NE(own.message().find("module of pg_eventbus is of another version"), std::string::npos) << name;
        EXPECT_EQ(own.hint(), "Install pg_eventbus and its modules together, then restart the server.");
    }
    EXPECT_EQ(complaint("first://h", R"({"of_alien":1})").message(), "unknown broker option \"of_alien\"");

    std::filesystem::remove(directory + "/pg_eventbus_broken.so");
    put("second", "broken");
    EXPECT_EQ(complaint("broken://h").message(), "the broken module of pg_eventbus cannot be used")
        << "it says that it is another";
    put("lame");
    EXPECT_EQ(complaint("lame://h").message(), "the lame module of pg_eventbus cannot be used");
}
