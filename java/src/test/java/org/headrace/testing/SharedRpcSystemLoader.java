package org.headrace.testing;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.runtime.rpc.AddressResolution;
import org.apache.flink.runtime.rpc.RpcSystem;
import org.apache.flink.runtime.rpc.RpcSystemLoader;
import org.apache.flink.runtime.rpc.pekko.PekkoRpcSystemLoader;

import java.net.InetSocketAddress;
import java.net.UnknownHostException;

/**
 * Gives all mini-clusters of a test JVM one {@link RpcSystem}.
 *
 * <p>Flink makes one for each cluster: it unpacks a jar and loads 1,400 classes of Pekko from it by a
 * class loader of their own, half of what a small job takes a processor for. An RPC system is a
 * factory without state, so clusters that share one share nothing else. It lives as long as the JVM.
 *
 * <p><b>Thread model</b>: any thread that starts a cluster.
 */
public final class SharedRpcSystemLoader implements RpcSystemLoader {

    /** System property: the folder for the unpacked jar, which whoever starts the JVM removes. */
    private static final String FOLDER = "headrace.testing.folder";

    private static RpcSystem shared;

    /** Flink asks the loader with the smallest number first; its own says 0. */
    @Override
    public int getLoadPriority() {
        return -1;
    }

    @Override
    public RpcSystem loadRpcSystem(Configuration ignored) {
        synchronized (SharedRpcSystemLoader.class) {
            if (shared == null) {
                Configuration configuration = new Configuration();
                configuration.set(CoreOptions.TMP_DIRS, System.getProperty(FOLDER));
                shared = new Unclosed(new PekkoRpcSystemLoader().loadRpcSystem(configuration));
            }
            return shared;
        }
    }

    /** An RPC system that the end of a cluster does not end. */
    private static final class Unclosed implements RpcSystem {

        private final RpcSystem inner;

        Unclosed(RpcSystem inner) {
            this.inner = inner;
        }

        @Override
        public RpcServiceBuilder localServiceBuilder(Configuration configuration) {
            return inner.localServiceBuilder(configuration);
        }

        @Override
        public RpcServiceBuilder remoteServiceBuilder(
                Configuration configuration, String externalAddress, String externalPortRange) {
            return inner.remoteServiceBuilder(configuration, externalAddress, externalPortRange);
        }

        @Override
        public String getRpcUrl(
                String host, int port, String endpoint, AddressResolution resolution, Configuration configuration)
                throws UnknownHostException {
            return inner.getRpcUrl(host, port, endpoint, resolution, configuration);
        }

        @Override
        public InetSocketAddress getInetSocketAddressFromRpcUrl(String url) throws Exception {
            return inner.getInetSocketAddressFromRpcUrl(url);
        }

        @Override
        public long getMaximumMessageSizeInBytes(Configuration configuration) {
            return inner.getMaximumMessageSizeInBytes(configuration);
        }
    }
}
